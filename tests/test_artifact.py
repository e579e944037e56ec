"""Saved layers: the same results without CVXPY, and a named error for every file that is no sound layer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import cvxpy as cp
import numpy as np
import pytest

import cvxlayers
from cvxlayers import CvxpyLayer, artifact
from cvxlayers.describe import describe
from cvxlayers.errors import ArtifactError, DomainError
from tests import checks
from tests.problems import CASES, Case

ROOT = Path(__file__).parents[1]
CASE = pytest.mark.parametrize("case", CASES.values(), ids=str)

pytestmark = [
    pytest.mark.filterwarnings("ignore:The problem has an expression with dimension greater than 2"),
    pytest.mark.filterwarnings("ignore:.*sparse CVXPY expression"),
]


def layer_of(case: Case, **keywords: object) -> CvxpyLayer:
    problem, parameters, variables = case.build()
    return CvxpyLayer(problem, parameters, variables, gp=case.gp, **keywords)


def duals(result: cvxlayers.LayerResult) -> list[np.ndarray]:
    return [part for value in result.dual.values() for part in (value if isinstance(value, tuple) else (value,))]


@CASE
def test_a_loaded_layer_computes_the_same(case: Case, tmp_path):
    layer = layer_of(case)
    layer.save(tmp_path / "layer.cvxl")
    loaded = cvxlayers.load(tmp_path / "layer.cvxl")
    values = case.sample(np.random.default_rng(0))
    one, other = layer.solve(*values), loaded.solve(*values)
    checks.assert_same_bits(other.variables, one.variables, "variable")
    np.testing.assert_array_equal(other.objective, one.objective)
    checks.assert_same_bits(duals(other), duals(one), "dual")
    cotangents = checks.cotangents_of(one.variables, np.random.default_rng(1))
    checks.assert_same_bits(loaded.vjp(values, cotangents)[0], layer.vjp(values, cotangents)[0], "gradient")
    assert artifact.dumps(loaded.layer) == artifact.dumps(layer.layer)


def fit(x, b):
    return cp.sum_squares(np.random.default_rng(0).normal(size=(5, 5)) @ x - b), []


def ball(x, b):
    return cp.sum_squares(x - b), [cp.norm(x) <= 1]


def entropy(x, b):
    return b @ x - cp.sum(cp.entr(x)), [cp.sum(x) == 1]


def norms(x, b):
    return cp.norm(x[:3] - b[:3]) + cp.norm(x[3:] - b[3:]) + cp.sum_squares(x), []


@pytest.mark.parametrize("recognise", [True, False])
@pytest.mark.parametrize("form", [fit, ball, entropy, norms], ids=lambda form: form.__name__)
def test_a_loaded_layer_works_by_the_same_methods(form, recognise):
    x, b = cp.Variable(5), cp.Parameter(5)
    cost, constraints = form(x, b)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cost), constraints), [b], [x], recognise=recognise).layer
    loaded = artifact.loads(artifact.dumps(layer))
    mine, theirs = layer.kernel, loaded.kernel
    assert (theirs.method, type(theirs.closed)) == (mine.method, type(mine.closed))
    assert (loaded.affine is None) == (layer.affine is None)
    assert describe(loaded) == describe(layer)


def test_options_travel(tmp_path):
    options = {"eps": 1e-7, "max_iters": 77}
    layer = layer_of(CASES["qp_simplex"], solver="clarabel", solver_args=options, on_failure="mask", strict=True)
    layer.save(tmp_path / "layer.cvxl")
    loaded = cvxlayers.load(tmp_path / "layer.cvxl").layer
    assert loaded.options.solver == layer.layer.options.solver
    assert loaded.options.plan.primary.name == "CLARABEL"
    assert loaded.options.on_failure == "mask"
    assert loaded.strict


def test_values_are_found_by_name_and_not_by_the_identities_of_another_process(tmp_path):
    problem, parameters, variables = CASES["qp_simplex"].build()
    layer = CvxpyLayer(problem, parameters, variables)
    layer.save(tmp_path / "layer.cvxl")
    result = cvxlayers.load(tmp_path / "layer.cvxl").solve(np.ones(6))
    np.testing.assert_array_equal(result.primal[variables[0].name()], result.variables[0])
    with pytest.raises(KeyError):
        result.primal[variables[0]]


WITHOUT_CVXPY = """
import sys
sys.modules["cvxpy"] = None
import numpy as np, cvxlayers
layer = cvxlayers.load(sys.argv[1])
gradients, _ = layer.vjp([np.arange(6.0)], [np.arange(6.0)])
print(layer(np.arange(6.0))[0].tolist(), gradients[0].tolist())
"""


def test_a_loaded_layer_needs_no_cvxpy(tmp_path):
    layer = layer_of(CASES["qp_simplex"])
    layer.save(tmp_path / "layer.cvxl")
    code = [sys.executable, "-c", WITHOUT_CVXPY, str(tmp_path / "layer.cvxl")]
    finished = subprocess.run(code, capture_output=True, text=True, check=True, cwd=ROOT)
    gradients, _ = layer.vjp([np.arange(6.0)], [np.arange(6.0)])
    assert finished.stdout.strip() == f"{layer(np.arange(6.0))[0].tolist()} {gradients[0].tolist()}"


def sound() -> bytes:
    return artifact.dumps(layer_of(CASES["qp_simplex"]).layer)


def rewritten(data: bytes, **members: bytes) -> bytes:
    """The archive with some members replaced; dots in their names are written as underscores."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as archive, zipfile.ZipFile(buffer, "w") as changed:
        for name in archive.namelist():
            changed.writestr(name, members.get(name.replace(".", "_"), archive.read(name)))
    return buffer.getvalue()


def npy(array: np.ndarray, **options: bool) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("length", [0, 10, 500, 2000, -1])
def test_truncated_files_raise_by_name(length, tmp_path):
    path = tmp_path / "layer.cvxl"
    path.write_bytes(sound()[:length])
    with pytest.raises(ArtifactError, match=r"layer\.cvxl is no saved layer, or is damaged"):
        cvxlayers.load(path)


def test_a_flipped_byte_anywhere_is_noticed_or_harmless():
    data = sound()
    wanted = artifact.loads(data)
    for position in range(0, len(data), 97):
        damaged = bytearray(data)
        damaged[position] ^= 0xFF
        try:
            loaded = artifact.loads(bytes(damaged))
        except ArtifactError:
            continue
        np.testing.assert_array_equal(loaded.compiled.q.linear.matrix.data, wanted.compiled.q.linear.matrix.data)
        assert artifact.dumps(loaded) == data


def test_newer_versions_and_other_formats_raise_by_name():
    data = sound()
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        header = json.loads(archive.read("header.json"))
    newer = json.dumps({**header, "version": 99, "library": "7.0"}).encode()
    with pytest.raises(ArtifactError, match=r"version 99 .* written by cvxlayers 7\.0; .*upgrade"):
        artifact.loads(rewritten(data, header_json=newer))
    with pytest.raises(ArtifactError, match="its format is 'other'"):
        artifact.loads(rewritten(data, header_json=json.dumps({**header, "format": "other"}).encode()))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.loads(rewritten(data, header_json=b"[]"))
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.loads(rewritten(data, header_json=json.dumps({**header, "shape": [1, 1]}).encode()))


class Executed:
    """An object whose unpickling would be noticed."""

    def __reduce__(self):
        return exec, ("raise SystemExit('executed')",)


@pytest.mark.parametrize(
    "member",
    [
        npy(np.array([Executed()], dtype=object), allow_pickle=True),
        npy(np.array([10**6] * 6)),
        npy(np.zeros(2)),
        b"no array",
    ],
    ids=["pickle", "range", "type", "text"],
)
def test_hostile_members_raise_by_name(member):
    with pytest.raises(ArtifactError, match="is damaged"):
        artifact.loads(rewritten(sound(), pattern_P_indices_npy=member))


def test_options_that_are_no_data_cannot_be_saved():
    layer = layer_of(CASES["qp_simplex"], solver="clarabel").layer
    layer.options.solver.native["callback"] = print
    with pytest.raises(ArtifactError, match="neither a number nor a text"):
        artifact.dumps(layer)


def test_what_values_are_checked_against_travels(tmp_path):
    c = cp.Parameter(3, nonneg=True, name="c")
    P = cp.Parameter((2, 2), PSD=True, name="P")
    x = cp.Variable(3, name="x")
    problem = cp.Problem(cp.Minimize(cp.sum_squares(x - c) + cp.trace(P)))
    for check in (True, False):
        layer = CvxpyLayer(problem, [c, P], [x], check=check)
        layer.save(tmp_path / "layer.cvxl")
        loaded = cvxlayers.load(tmp_path / "layer.cvxl")
        bad = np.array([1.0, -2.0, 0.0]), -np.eye(2)
        if check:
            with pytest.raises(DomainError, match="'c'"):
                loaded(*bad)
            with pytest.raises(DomainError, match="'P'"):
                loaded(np.ones(3), -np.eye(2))
        else:
            np.testing.assert_allclose(loaded(*bad)[0], bad[0], atol=1e-12)


def test_a_complex_layer_travels(tmp_path):
    c, z = cp.Parameter(2, complex=True), cp.Variable(2, complex=True)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(z - c))), [c], [z])
    layer.save(tmp_path / "layer.cvxl")
    value = np.array([1 + 2j, -3j])
    (found,) = cvxlayers.load(tmp_path / "layer.cvxl")(value)
    np.testing.assert_allclose(found, value, atol=1e-12)
