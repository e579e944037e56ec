"""The examples of physics: a ball that hits a chain, and a puck that slides to rest."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("rich")

from examples.experiment import Context  # noqa: E402
from examples.physics import slide  # noqa: E402
from examples.physics.__main__ import EXPERIMENTS, main  # noqa: E402
from examples.physics.chain import Scene, contact_rows, rod_rows, simulate, step_layer  # noqa: E402

NAMED = {experiment.name: experiment for experiment in EXPERIMENTS}


def metrics_of(name: str, size: str, seed: int = 0) -> dict[str, float]:
    experiment = NAMED[name]
    outcome = experiment.run(experiment.sizes[size], Context(seed))
    return {key: float(value) for key, value in outcome.metrics.items()}


def test_list(capsys):
    main(["list"])
    assert "chain" in capsys.readouterr().out


@pytest.mark.parametrize("rows", [rod_rows, contact_rows])
def test_rows_are_the_rates_of_the_distances(rows):
    scene, generator = Scene(links=3, steps=10), torch.Generator().manual_seed(0)
    positions, velocities = torch.randn(2, 4, 2, generator=generator, dtype=torch.float64)
    step = 1e-6
    above, below = (rows(positions + sign * step * velocities, scene)[0] for sign in (1, -1))
    rates = rows(positions, scene)[1] @ velocities.flatten()
    torch.testing.assert_close(rates, (above - below) / (2 * step), rtol=0, atol=1e-8)


def test_the_chain_stays_whole_and_nothing_overlaps():
    scene = Scene(links=3, steps=40)
    path, _ = simulate(step_layer(3), scene, torch.tensor(2.0, dtype=torch.float64))
    stretch, gap = rod_rows(path, scene)[0], contact_rows(path, scene)[0]
    assert stretch.abs().max() < 0.1 * scene.rod  # rods are straight within a step, and turn
    assert gap.min() > -0.02 * scene.radius
    assert path[-1, :-1, 0].max() > 0.05  # the ball has moved the chain


def test_chain_finds_the_mass(tmp_path):
    picture = tmp_path / "chain.png"
    main(["chain", "--iterations", "1", "--steps", "8", "--plot", str(picture)])
    assert picture.read_bytes()[:4] == b"\x89PNG"
    metrics = metrics_of("chain", "ci")
    assert metrics["relative_mass_error"] < 0.02
    assert metrics["gradient_error"] < 1e-6
    assert metrics["gradients_compared"] > 0


def test_a_step_of_the_slide_stays_in_the_friction_cone():
    layer, mu = slide.friction_layer(), 0.3
    free = torch.tensor([2.0, -1.0, -0.5], dtype=torch.float64)
    (u,) = layer(free, torch.tensor(mu, dtype=torch.float64))
    impulse = u - free
    assert impulse[:2].norm().item() == pytest.approx(mu * impulse[2].item(), rel=1e-8)
    assert torch.nn.functional.cosine_similarity(impulse[:2], free[:2], dim=0).item() == pytest.approx(-1.0)


def test_slide_approaches_coulombs_law_with_the_time_step():
    mu, errors = torch.tensor([0.3], dtype=torch.float64), []
    for steps in (10, 20, 40):
        settings = slide.Settings(steps=steps)
        path = slide.simulate(slide.friction_layer(), settings, mu)
        errors.append(slide.misfit(path, slide.coulomb(settings, mu)).sqrt().item())
    assert errors[0] > 1.6 * errors[1] > 1.6**2 * errors[2]


def test_slide_finds_the_friction():
    metrics = metrics_of("slide", "ci")
    assert metrics["gradient_error"] < 1e-6
    assert metrics["relative_friction_error"] < 0.15 < metrics["relative_friction_error_before"]


@pytest.mark.full
@pytest.mark.parametrize("seed", range(3))
def test_chain_at_full_size(seed):
    metrics = metrics_of("chain", "full", seed)
    assert metrics["relative_mass_error"] < 0.02
    assert metrics["gradient_error"] < 1e-6
