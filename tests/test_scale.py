"""Training where one machine is outgrown: the same parameters by one process and by several."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from examples.experiment import Context
from examples.scale.policy import rollouts
from examples.scale.processes import DEVICES, PROCESSES
from examples.scale.torch_policy import share

slow = pytest.mark.slow


@slow
def test_two_processes_under_torchrun_train_as_one() -> None:
    outcome = PROCESSES.run(PROCESSES.settings("ci"), Context())
    assert outcome.metrics["largest_difference"] <= 1e-10


@slow
def test_two_devices_train_as_one() -> None:
    outcome = DEVICES.run(DEVICES.settings("ci"), Context())
    assert outcome.metrics["largest_difference"] <= 1e-10
    assert outcome.metrics["cost_after"] < outcome.metrics["cost_before"]


@slow
def test_a_sweep_on_ray_ships_the_layer(tmp_path: Path) -> None:
    pytest.importorskip("ray")
    # In a process of its own: Ray forks, and the threads of JAX do not survive that.
    code = [sys.executable, "-m", "examples.scale", "sweep", "--json", str(tmp_path / "sweep.json")]
    finished = subprocess.run(code, capture_output=True, text=True, check=False, cwd=Path(__file__).parents[1])
    assert finished.returncode == 0, finished.stderr[-3000:]
    metrics = json.loads((tmp_path / "sweep.json").read_text())["metrics"]
    before, after = np.array(metrics["cost_before"]), np.array(metrics["cost_after"])
    # A limit of 0.05 leaves a policy nothing to choose.
    assert after[-1] < before[-1]
    # More freedom of the inputs costs less.
    assert after[-1] < after[0]


def test_processes_share_rollouts_evenly_or_not_at_all() -> None:
    drawn = rollouts(6, 3)
    parts = [share(drawn, rank, 2) for rank in range(2)]
    np.testing.assert_array_equal(np.concatenate([part.starts for part in parts]), drawn.starts)
    np.testing.assert_array_equal(np.concatenate([part.noise for part in parts], axis=1), drawn.noise)
    with pytest.raises(ValueError, match="6 rollouts cannot be shared evenly by 4 processes"):
        share(drawn, 0, 4)


@slow
@pytest.mark.parametrize("library", ["equinox", "flax"])
def test_layers_train_inside_modules(library: str) -> None:
    pytest.importorskip(library)
    import jax

    modules = pytest.importorskip("examples.scale.modules")
    key = jax.random.key(0)
    features = jax.random.normal(key, (16, 3))
    returns = features @ jax.random.normal(jax.random.key(1), (3, 4))
    if library == "equinox":
        losses = modules.train_equinox(modules.EquinoxAllocator(3, 4, key), features, returns, 20)
    else:
        losses = modules.train_flax(modules.FlaxAllocator(3, 4, modules.nnx.Rngs(0)), features, returns, 20)
    best = -np.mean(np.max(np.asarray(returns), axis=1))
    assert losses[-1] < 0.6 * best
    assert losses[-1] < losses[0]
