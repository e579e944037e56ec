"""The benchmarks: each workload at a tiny size against its own reference, the contest, and the tables."""

from __future__ import annotations

import json
import os
from functools import partial
from time import sleep
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("rich")

from benchmarks import run
from benchmarks.__main__ import main
from benchmarks.contest import Answer, Contender, Entry, Score, race, start
from benchmarks.exact_quadratic import exact_answer, random_programs
from benchmarks.one_row import measured
from benchmarks.peers.layers import our_entry
from benchmarks.report import detail_lines, standing, summary_lines
from benchmarks.run import Result, Settings, finished, run_row
from benchmarks.workload import Bar, Row
from benchmarks.workloads import NAMES, TINY, all_rows, load
from benchmarks.workloads.dense_qp import qp_problem

# PyTorch says this of itself, when it differentiates forward.
pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script.*:DeprecationWarning")


@pytest.mark.parametrize("name", TINY)
def test_layer_agrees_with_the_reference(name):
    task = load(name).prepare(batch=2, seed=0, **TINY[name])
    chosen = [entry for entry in task.entries if entry.kind != "peer"]
    scores = race(chosen, task.reference(), repetitions=1, warmup=0)
    assert scores[0].name == "cvxlayers"
    for score in scores:
        assert not score.failure
        assert score.solution_error <= 1e-8, score.name
        assert score.gradient_error <= 1e-6, score.name


@pytest.mark.parametrize("everything", [0, 1])
def test_portfolio_with_a_constant_model(everything):
    task = load("portfolio").prepare(batch=2, seed=1, assets=12, everything=everything)
    (score,) = race(task.entries[:1], task.reference(), repetitions=1, warmup=0)
    assert score.gradient_error <= 1e-6


def test_every_workload_has_rows_of_its_own_names():
    assert set(NAMES) == set(TINY) | {"compilation", "threads", "reductions", "cocp_box"}
    names = [row.name for row in all_rows()]
    assert len(names) == len(set(names))
    assert {row.workload for row in all_rows()} == set(NAMES)


def test_exact_gradients_match_differences():
    """Along one random direction of all data, to fourth order."""
    programs = random_programs(1, 6, 2, 4, seed=3)
    answer, rng, step = exact_answer(programs), np.random.default_rng(0), 1e-3
    direction = {name: rng.normal(size=value.shape) for name, value in programs.parameters.items()}
    direction["Q"] = direction["Q"] + direction["Q"].mT
    along = sum((answer.gradients[name] * direction[name]).sum() for name in direction)

    def value(distance: float) -> float:
        moved = {name: data + distance * direction[name] for name, data in programs.parameters.items()}
        return float(
            (exact_answer(type(programs)(**moved, weights=programs.weights)).solution * programs.weights).sum()
        )

    difference = (8 * (value(step) - value(-step)) - (value(2 * step) - value(-2 * step))) / (12 * step)
    assert along == pytest.approx(difference, rel=1e-7)


def ours(programs: Any) -> Entry:
    equalities, inequalities, n = programs.A.shape[1], programs.G.shape[1], programs.p.shape[1]
    return our_entry(lambda: qp_problem(n, equalities, inequalities), programs.parameters, programs.weights)


def changed(entry: Entry, name: str, answer: Answer, finer: tuple[Entry, ...] = ()) -> Entry:
    """A peer that does the same work, and says something else."""

    def build() -> Contender:
        made = start(entry).contender
        return Contender(made.forward, lambda: (made.step(), lambda: answer)[1])

    return Entry(name, build, finer=finer)


def test_contest_sees_a_wrong_answer_and_tries_finer_settings():
    programs = random_programs(3, 4, 1, 2, seed=0)
    exact, entry = exact_answer(programs), ours(random_programs(3, 4, 1, 2, seed=0))
    wrong = Answer(exact.solution * [[1.1], [1.0], [1.0]], {k: 1.01 * v for k, v in exact.gradients.items()})
    rough = changed(entry, "rough", wrong, finer=(changed(entry, "also rough", wrong), changed(entry, "fine", exact)))
    scores = {score.name: score for score in race([entry, rough], exact, repetitions=2, warmup=0)}
    assert set(scores) == {"cvxlayers", "rough", "fine"}
    assert scores["rough"].solution_error == pytest.approx(0.1)
    assert scores["rough"].median_gradient_error == pytest.approx(0.01)
    assert not scores["rough"].accurate
    assert scores["fine"].accurate


def test_contest_goes_on_without_what_fails():
    programs = random_programs(2, 4, 1, 2, seed=0)

    def fail() -> Contender:
        raise SystemExit("gave up")

    entries = [ours(programs), Entry("ends the process", fail), Entry("absent", fail, imports=("no_such_module",))]
    first, *others = race(entries, exact_answer(programs), repetitions=1, warmup=0)
    assert first.accurate
    assert [score.failure for score in others] == [
        "SystemExit: gave up",
        "ModuleNotFoundError: No module named 'no_such_module'",
    ]


def test_slow_contenders_drop_out():
    programs = random_programs(2, 4, 1, 2, seed=0)
    (score,) = race([ours(programs)], exact_answer(programs), repetitions=50, warmup=0, seconds=0.0)
    assert len(score.step) == 1


def test_short_work_is_repeated_in_its_turn():
    def build(seconds: float) -> Contender:
        return Contender(lambda: sleep(seconds), lambda: (sleep(seconds), lambda: answer)[1])

    answer = Answer(np.ones((1, 1)), {"p": np.ones((1, 1))})
    entries = [Entry(str(seconds), partial(build, seconds)) for seconds in (0.001, 0.03)]
    short, long = race(entries, answer, repetitions=2, warmup=1)
    assert len(long.step) == 2
    assert len(short.step) == len(short.forward) > 2


def test_contenders_that_do_not_end_are_given_up_by_name(tmp_path, monkeypatch):
    """A process whose turn has not changed for longer than the patience is ended, and the row starts without it."""
    row = Row("sparsemax", {"n": 100}, 1)
    settings = Settings(repetitions=1, warmup=0, seconds=0.0, patience=20.0)
    waits, (first, slow, *_) = [], run.contenders(row)

    def wait(process: Any, turn: Any, settings: Settings) -> int | None:
        waits.append(process.args)
        if "--without" not in process.args:
            turn.write_text(slow)
            os.utime(turn, (0, 0))
        return real(process, turn, settings)

    real = run._wait
    monkeypatch.setattr(run, "_wait", wait)
    said: list[str] = []
    scores = {score.name: score for score in run_row(tmp_path, row, settings, said.append).scores}
    assert said == [f"{row.name}: {slow} is given up after 20 s"]
    assert scores[slow].failure == "no answer within 20 s"
    assert scores[first].accurate
    assert "--without" in waits[1]


def test_row_is_kept_and_reported(tmp_path, monkeypatch):
    """Without peers: whichever are not installed are reported as that."""
    row = Row("sparsemax", {"n": 100}, 1, [Bar(1.0, 2.0), Bar(1e-9, 1.0, "torch")])
    result = run_row(tmp_path, row, Settings(repetitions=1, warmup=0, seconds=0.0))
    kept = finished(tmp_path, row)
    assert kept == result
    assert json.loads((tmp_path / f"{row.name}.json").read_text())["versions"]["cvxpy"]
    found = standing(result, "torch")
    assert found.peer is not None
    assert found.ratio > 0
    summary = "\n".join(summary_lines([row], [result]))
    assert "sparsemax-n100-batch1" in summary
    assert any("cvxlayers" in line for line in detail_lines(result))


def test_chart_fills_the_best_accurate_peer():
    figures = pytest.importorskip("matplotlib.figure")
    from benchmarks.chart import plot

    def score(kind: str, seconds: float, error: float) -> Score:
        return Score(f"{seconds} s", kind, step=[seconds], median_gradient_error=error, rival=2.0)

    scores = [score("ours", 2.0, 0.0), score("peer", 6.0, 0.0), score("peer", 4.0, 0.0), score("peer", 1.0, 0.1)]
    axes = figures.Figure().subplots()
    plot(axes, [Result("row", "dense_qp", 1, {}, scores)], peer="red")
    dots = {line.get_xdata()[0]: line.get_markerfacecolor() for line in axes.lines if line.get_marker() == "o"}
    assert dots == {3.0: "none", 2.0: "red"}


def test_memory_is_what_a_call_adds_to_what_was_there_before():
    """A contender that keeps 24 MB, needs 96 MB more to be built, and 48 MB more to be called."""
    megabyte, kept = 2**17, []  # numbers

    def hold(size: int) -> None:
        np.full(size * megabyte, 1.0)

    def build() -> Contender:
        hold(96)
        kept.append(np.full(24 * megabyte, 1.0))
        nothing = Answer(np.zeros(1), {})
        return Contender(lambda: hold(48), lambda: (hold(8), lambda: nothing)[1])

    idle = Contender(lambda: None, lambda: lambda: Answer(np.zeros(1), {}))
    score = measured(Entry("big", build), Entry("small", lambda: idle))
    assert score.memory is not None
    assert score.building is not None
    assert score.memory / 2**20 == pytest.approx(72, abs=4)
    assert score.building / 2**20 == pytest.approx(96, abs=4)


def test_rows_with_a_bar_come_first_and_a_run_ends_in_time(tmp_path, monkeypatch):
    started: list[str] = []

    def record(folder: Any, row: Row, *_: Any) -> Result:
        started.append(row.name)
        return Result(row.name, row.workload, row.batch, dict(row.sizes), [Score("cvxlayers", "ours", failure="none")])

    monkeypatch.setattr("benchmarks.__main__.run_row", record)
    monkeypatch.setattr("benchmarks.__main__.detail_table", lambda result: result.row)
    chosen = ["--row", "isotonic-*", "--row", "sparse_qp-*-batch1", "--out", str(tmp_path)]
    main(chosen)
    assert started == ["sparse_qp-n1000-batch1", "isotonic-n1000-batch1", "isotonic-n100000-batch1"]
    assert (tmp_path / "results.md").exists()
    main([*chosen, "--minutes", "0"])
    assert len(started) == 3
