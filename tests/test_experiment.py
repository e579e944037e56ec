"""The examples' shared command line: listing, settings as options, JSON, pictures, checkpoints."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from examples.experiment import Context, Experiment, Outcome, main


@dataclass(frozen=True)
class Settings:
    epochs: int = 50
    lr: float = 0.1


def run(settings: Settings, context: Context) -> Outcome:
    state = context.resume() or {"epoch": 0, "weights": torch.zeros(2)}
    for epoch in context.track(range(int(state["epoch"]), settings.epochs), "training"):
        state = {"epoch": epoch + 1, "weights": state["weights"] + settings.lr}
        context.keep(state)
    metrics = {"cost": float(state["weights"].sum()), "curve": [1.0, context.seed]}
    return Outcome(metrics, [f"reached epoch {state['epoch']}"], lambda figure: figure.subplots().plot([1, 2]))


TOY = Experiment("toy", "Adds 5% of nothing.", run, {"ci": Settings(3), "full": Settings()}, {"cost": 10.0})


def test_list_shows_every_experiment_with_its_reference_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    main("toys", [TOY], ["list"])
    shown = capsys.readouterr().out
    assert "toy" in shown
    assert "Adds 5% of nothing." in shown
    assert "cost 10" in shown


def test_a_run_writes_the_same_keys_at_both_sizes(tmp_path: Path) -> None:
    written = {}
    for size in ("ci", "full"):
        target = tmp_path / f"{size}.json"
        main("toys", [TOY], ["toy", "--size", size, "--seed", "4", "--json", str(target)])
        written[size] = json.loads(target.read_text())
    small, full = written["ci"], written["full"]
    assert list(small) == list(full) == ["experiment", "size", "seed", "seconds", "metrics", "reference"]
    assert small["metrics"] == {"cost": pytest.approx(0.6), "curve": [1.0, 4.0]}
    assert full["metrics"]["cost"] == pytest.approx(10.0)
    assert full["reference"] == {"cost": 10.0}


def test_settings_are_options_and_a_picture_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main("toys", [TOY], ["toy", "--epochs", "2", "--lr", "1", "--plot", str(tmp_path / "new" / "toy.png")])
    assert "reached epoch 2" in capsys.readouterr().out
    assert (tmp_path / "new" / "toy.png").stat().st_size > 1000
    with pytest.raises(SystemExit):
        main("toys", [TOY], ["toy", "--epochs", "many"])


def test_training_resumes_from_its_checkpoint(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = ["--checkpoint", str(tmp_path / "toy.pt"), "--json", str(tmp_path / "toy.json")]
    main("toys", [TOY], ["toy", "--epochs", "2", *kept])
    main("toys", [TOY], ["toy", "--epochs", "5", *kept])
    assert json.loads((tmp_path / "toy.json").read_text())["metrics"]["cost"] == pytest.approx(1.0)
    assert "reached epoch 5" in capsys.readouterr().out
