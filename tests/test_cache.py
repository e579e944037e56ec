"""Compiled problems on disk: the same results under any names, fresh ones for anything else, never damaged ones."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import cvxpy as cp
import numpy as np
import pytest
import scipy.sparse as sp
from cvxpy.atoms.affine.add_expr import AddExpression

import cvxlayers
from cvxlayers.archive import pack, rebuild, unpack
from cvxlayers.canonical import compile as compiler
from cvxlayers.canonical.cache import cache_folder
from cvxlayers.canonical.fingerprint import fingerprint
from cvxlayers.canonical.signature import check_signature
from cvxlayers.errors import CvxlayersWarning, DPPError, OptionError
from tests.checks import assert_same_bits

VALUES = np.array([[0.5, -1.0, 2.0], [1.0, 0.0, -0.5]])


def problem(weight: float = 1.0, name: str = "x"):
    x, c = cp.Variable(3, name=name), cp.Parameter(3, name=f"c_{name}")
    constraints = [cp.sum(x) == 1, x >= 0]
    return cp.Problem(cp.Minimize(weight * cp.sum_squares(x - c)), constraints), [c], [x], constraints


def layer(folder: Path, weight: float = 1.0, name: str = "x") -> cvxlayers.CvxpyLayer:
    task, parameters, variables, _ = problem(weight, name)
    return cvxlayers.CvxpyLayer(task, parameters, variables, cache=folder)


@pytest.fixture
def counted(monkeypatch):
    """How often a problem has been compiled."""
    calls, compile_ = [], compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *a: (calls.append(1), compile_(*a))[1])
    return calls


def test_the_second_layer_is_read_and_answers_in_its_own_names(tmp_path, counted):
    first = layer(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir()] == [".cvxc"]
    task, parameters, variables, constraints = problem(name="other")
    second = cvxlayers.CvxpyLayer(task, parameters, variables, cache=str(tmp_path))
    assert len(counted) == 1
    assert_same_bits(first(VALUES), second(VALUES), "output")
    assert_same_bits(first.vjp([VALUES], [VALUES])[0], second.vjp([VALUES], [VALUES])[0], "gradient")
    result = second.solve(VALUES)
    assert_same_bits([result.primal[variables[0]]], [result.primal["other"]], "primal")
    plain = cvxlayers.CvxpyLayer(task, parameters, variables).solve(VALUES)
    for constraint in constraints:
        assert_same_bits([result.dual[constraint]], [plain.dual[constraint]], "dual")
    assert "c_other" in second.describe()
    assert second.layer.compiled.variables.names == ("other",)


def test_listed_dual_variables_and_their_order_are_part_of_the_problem(tmp_path, counted):
    task, parameters, (x,), (total, _) = problem()
    for variables in ([x, total], [total, x], [x]):
        read = [cvxlayers.CvxpyLayer(task, parameters, variables, cache=tmp_path)(VALUES) for _ in range(2)]
        assert_same_bits(read[0], read[1], "output")
        assert_same_bits(read[1], cvxlayers.CvxpyLayer(task, parameters, variables)(VALUES), "output")
    assert len(counted) == 3 + 3


CHANGES = {
    "constant": lambda x, c: (cp.sum_squares(x - 1.5 * c), [x >= 0]),
    "entry of a matrix": lambda x, c: (cp.sum_squares(np.diag([1.0, 1.0, 2.0]) @ x - c), [x >= 0]),
    "sparse matrix": lambda x, c: (cp.sum_squares(sp.diags_array([1.0, 1.0, 2.0]) @ x - c), [x >= 0]),
    "sense": lambda x, c: (cp.sum_squares(x - c), [x <= 0]),
    "equality": lambda x, c: (cp.sum_squares(x - c), [x == 0]),
    "order of an index": lambda x, c: (cp.sum_squares(x - c[::-1]), [x >= 0]),
    "another index": lambda x, c: (cp.sum_squares(x - c[[0, 1, 1]]), [x >= 0]),
    "norm": lambda x, c: (cp.norm(x - c, 1), [x >= 0]),
    "another norm": lambda x, c: (cp.norm(x - c, "inf"), [x >= 0]),
    "p-norm": lambda x, c: (cp.pnorm(x - c, 3), [x >= 0]),
    "another p-norm": lambda x, c: (cp.pnorm(x - c, 4), [x >= 0]),
    "largest": lambda x, c: (cp.sum_largest(x - c, 2) + cp.sum_squares(x), [x >= 0]),
    "fewer largest": lambda x, c: (cp.sum_largest(x - c, 1) + cp.sum_squares(x), [x >= 0]),
    "huber": lambda x, c: (cp.sum(cp.huber(x - c, 1)), [x >= 0]),
    "wider huber": lambda x, c: (cp.sum(cp.huber(x - c, 2)), [x >= 0]),
    "perspective": lambda x, c: (cp.perspective(cp.sum_squares(x), cp.Variable(nonneg=True)) + c @ x, [x >= 0]),
    "another perspective": lambda x, c: (
        cp.perspective(2 * cp.sum_squares(x), cp.Variable(nonneg=True)) + c @ x,
        [x >= 0],
    ),
    "power": lambda x, c: (cp.sum(cp.power(x, 1.5)) + c @ x, [x >= 0]),
    "another power": lambda x, c: (cp.sum(cp.power(x, 1.6)) + c @ x, [x >= 0]),
    "every third": lambda x, c: (cp.sum_squares(cp.hstack([x, c])[0:5:3]) + cp.sum_squares(x), [x >= 0]),
    "every fourth": lambda x, c: (cp.sum_squares(cp.hstack([x, c])[0:5:4]) + cp.sum_squares(x), [x >= 0]),
    "two constraints": lambda x, c: (cp.sum_squares(x - c), [x >= 0, x <= 1]),
    "the same, turned": lambda x, c: (cp.sum_squares(x - c), [x <= 1, x >= 0]),
}


def key(make, attributes: dict[str, Any] | None = None, gp: bool = False) -> str | None:
    x, c = cp.Variable(3, **(attributes or {})), cp.Parameter(3)
    cost, constraints = make(x, c)
    return fingerprint(check_signature(cp.Problem(cp.Minimize(cost), constraints), [c], [x], ()), gp)


def test_whatever_changes_the_program_changes_the_fingerprint():
    keys = {name: key(make) for name, make in CHANGES.items()}
    assert keys == {name: key(make) for name, make in CHANGES.items()}
    plain = CHANGES["sense"]
    keys["bounds"] = key(plain, {"bounds": [0, 1]})
    keys["wider bounds"] = key(plain, {"bounds": [0, np.array([1, 1, 2])]})
    keys["sign"] = key(plain, {"nonneg": True})
    keys["geometric"] = key(plain, gp=True)
    assert None not in keys.values()
    assert len(set(keys.values())) == len(keys)


def test_shapes_of_variables_count():
    def of(*shape: int) -> str | None:
        x = cp.Variable(shape)
        return fingerprint(check_signature(cp.Problem(cp.Minimize(cp.sum_squares(x - 1))), [], [x], ()), False)

    assert None not in {of(2, 3), of(3, 2), of(6), of(1), of()}
    assert len({of(2, 3), of(3, 2), of(6), of(1), of()}) == 5


def test_attributes_and_frozen_values_of_parameters_count():
    def of(value: float, **attributes) -> str | None:
        x, a, b = cp.Variable(2), cp.Parameter(2, **attributes), cp.Parameter(2, value=[1.0, value])
        task = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x <= b])
        return fingerprint(check_signature(task, [a], [x], [b]), False)

    assert of(2.0) == of(2.0)
    assert len({of(2.0), of(3.0), of(2.0, nonneg=True)}) == 3


def test_the_order_of_the_parameters_counts():
    x, a, b = cp.Variable(2), cp.Parameter(2), cp.Parameter(2)
    task = cp.Problem(cp.Minimize(cp.sum_squares(x - a)), [x <= b])
    keys = {fingerprint(check_signature(task, order, [x], ()), False) for order in ([a, b], [b, a])}
    assert len(keys) == 2


def test_atoms_of_ones_own_are_compiled_each_time(tmp_path, counted):
    class Shifted(AddExpression):
        """An atom that this library cannot look into."""

    for _ in range(2):
        x, c = cp.Variable(3), cp.Parameter(3)
        cost = cp.Minimize(cp.sum_squares(Shifted([x, -c])))
        cvxlayers.CvxpyLayer(cp.Problem(cost), [c], [x], cache=tmp_path)
    assert len(counted) == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("radius", [1.0, 2.0])
def test_atoms_whose_state_cannot_be_seen_are_compiled_each_time(tmp_path, counted, radius):
    for size in (1.0, radius):
        u, y, c = cp.Variable(2), cp.Variable(2), cp.Parameter(2)
        norm = size * cp.suppfunc(u, [cp.norm(u) <= size])(y)
        made = cvxlayers.CvxpyLayer(
            cp.Problem(cp.Minimize(norm + 0.5 * cp.sum_squares(y - c))), [c], [y], cache=tmp_path
        )
        value = np.array([3.0, 4.0])
        np.testing.assert_allclose(made(value)[0], value * (1 - size**2 / 5), atol=1e-8)
    assert len(counted) == 2
    assert not list(tmp_path.iterdir())


def test_a_problem_that_has_been_solved_has_the_same_fingerprint():
    task, parameters, variables, _ = problem()
    before = fingerprint(check_signature(task, parameters, variables, ()), False)
    parameters[0].value = VALUES[0]
    task.solve()
    assert task.objective.expr.is_dpp()
    assert fingerprint(check_signature(task, parameters, variables, ()), False) == before


def test_processes_that_write_at_once_leave_one_sound_file(tmp_path):
    code = """
import sys, numpy as np
from pathlib import Path
from tests.test_cache import VALUES, layer
for _ in range(3):
    for path in Path(sys.argv[1]).glob("*.cvxc"):
        path.unlink(missing_ok=True)
    print(layer(Path(sys.argv[1]))(VALUES)[0].tobytes().hex())
"""
    command = [sys.executable, "-W", "error::UserWarning", "-c", code, str(tmp_path)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = {line for one in running for line in one.communicate()[0].split()}
    assert [one.returncode for one in running] == [0, 0]
    assert len(said) == 1
    assert [path.suffix for path in tmp_path.iterdir()] == [".cvxc"]


def test_no_flipped_byte_changes_a_result(tmp_path, rng):
    want = layer(tmp_path)(VALUES)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    for place in rng.integers(len(data), size=40).tolist():
        path.write_bytes(data[:place] + bytes([data[place] ^ int(rng.integers(1, 256))]) + data[place + 1 :])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CvxlayersWarning)
            assert_same_bits(layer(tmp_path)(VALUES), want, "output")


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "another problem", "text"])
def test_a_damaged_or_foreign_file_is_named_and_replaced(tmp_path, counted, damage):
    want = layer(tmp_path)(VALUES)
    (path,) = tmp_path.iterdir()
    data = path.read_bytes()
    if damage == "another problem":
        layer(tmp_path, weight=2.0)
        (other,) = set(tmp_path.iterdir()) - {path}
        path.write_bytes(other.read_bytes())
    else:
        middle = len(data) // 2
        flipped = data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :]
        path.write_bytes({"cut": data[:middle], "flipped": flipped, "empty": b"", "text": b"hello"}[damage])
    compiled = len(counted)
    with pytest.warns(CvxlayersWarning, match=path.name):
        got = layer(tmp_path)(VALUES)
    assert_same_bits(got, want, "output")
    assert len(counted) == compiled + 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer(tmp_path)
    assert len(counted) == compiled + 1


def foreign(header: dict[str, Any], compiled: Any, key: str) -> tuple[dict[str, Any], Any]:
    """A file with this key in its header that is of something else."""
    maps, leaves = compiled.parameters, compiled.leaves
    changes = {
        "another format": ({**header, "format": "cvxlayers"}, compiled),
        "parameters of other shapes": (header, replace(compiled, parameters=replace(maps, shapes=((3, 1),)))),
        "variables of other shapes": (
            header,
            replace(compiled, leaves=replace(leaves, map=replace(leaves.map, shapes=((3, 1), *leaves.map.shapes[1:])))),
        ),
        "more outputs": (
            header,
            replace(
                compiled,
                variables=replace(compiled.variables, names=("a", "b"), shapes=((3,), (0,)), exps=(False,) * 2),
            ),
        ),
    }
    return changes[key]


@pytest.mark.parametrize(
    "kind", ["another format", "parameters of other shapes", "variables of other shapes", "more outputs"]
)
def test_a_file_under_the_right_name_that_is_of_something_else_is_replaced(tmp_path, counted, kind):
    first = layer(tmp_path)
    (path,) = tmp_path.iterdir()
    header, arrays = unpack(path.read_bytes())
    own = {name: header[name] for name in ("format", "fingerprint", "with_duals")}
    path.write_bytes(pack(*foreign(own, rebuild(header, arrays), kind)))
    with pytest.warns(CvxlayersWarning, match="is damaged, or is no compiled problem"):
        second = layer(tmp_path)
    assert len(counted) == 2
    assert_same_bits(first(VALUES), second(VALUES), "output")
    layer(tmp_path)
    assert len(counted) == 2


def test_what_cannot_be_moved_into_place_leaves_nothing_behind(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError("no room")

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.warns(CvxlayersWarning, match=r"cannot be written \(no room\)"):
        layer(tmp_path)
    assert not list(tmp_path.iterdir())


def test_duals_that_are_not_recovered_are_not_looked_for(tmp_path, counted, monkeypatch):
    monkeypatch.setattr(compiler, "dual_ids", lambda conic: set())
    first, second = layer(tmp_path), layer(tmp_path)
    assert len(counted) == 1
    assert not second.solve(VALUES).dual
    assert_same_bits(first(VALUES), second(VALUES), "output")


def test_a_folder_that_cannot_be_written_is_warned_about(tmp_path):
    file = tmp_path / "file"
    file.write_text("no folder")
    with pytest.warns(CvxlayersWarning, match="cannot be"):
        made = layer(file / "below")
    assert made(VALUES)[0].shape == (2, 3)


def test_what_is_no_path_is_refused():
    with pytest.raises(OptionError, match="cache must be the path of a folder"):
        cache_folder(3)


def test_problems_that_cannot_become_layers_raise_each_time(tmp_path):
    for _ in range(2):
        x, c = cp.Variable(2), cp.Parameter(2)
        with pytest.raises(DPPError):
            cvxlayers.CvxpyLayer(
                cp.Problem(cp.Minimize(cp.sum_squares(cp.multiply(c, c) - x))), [c], [x], cache=tmp_path
            )
    assert not list(tmp_path.iterdir())


def test_the_environment_names_a_folder_for_another_process(tmp_path):
    code = """
import cvxpy as cp, numpy as np, cvxlayers
x, c = cp.Variable((2, 2), PSD=True), cp.Parameter((2, 2), symmetric=True)
layer = cvxlayers.CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x - c)), [cp.trace(x) == 1]), [c], [x])
print(layer(np.diag([1.0, -2.0]))[0].tolist())
"""
    environment = {**os.environ, "CVXLAYERS_CACHE": str(tmp_path / "kept")}
    said = []
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-W", "error::UserWarning", "-c", code], env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        said.append((done.stdout, [(path.name, path.stat().st_mtime_ns) for path in (tmp_path / "kept").iterdir()]))
    assert said[0] == said[1]


def test_geometric_and_complex_programs_are_kept_too(tmp_path, counted):
    def outputs() -> list[np.ndarray]:
        x, y, a = cp.Variable(pos=True), cp.Variable(pos=True), cp.Parameter(pos=True)
        geometric = cp.Problem(cp.Minimize(x / y + a * y / x**2), [x <= 3])
        z, w = cp.Variable(2, complex=True), cp.Parameter(2, complex=True)
        circles = cp.Problem(cp.Minimize(cp.sum_squares(z - w)), [cp.abs(z) <= 1])
        of_positive = cvxlayers.CvxpyLayer(geometric, [a], [x, y], gp=True, cache=tmp_path)
        of_complex = cvxlayers.CvxpyLayer(circles, [w], [z], cache=tmp_path)
        return [*of_positive(np.array([1.0, 2.0])), *of_complex(np.array([1 + 2j, 0]))]

    assert_same_bits(outputs(), outputs(), "output")
    assert len(counted) == 2
