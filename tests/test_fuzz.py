"""Damaged files and arguments of any kind: everything is taken, or refused by an error of ours; nothing crashes."""

from __future__ import annotations

import io
import json
import random
import warnings
import zipfile
from collections.abc import Callable

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cvxlayers import CvxpyLayer, artifact
from cvxlayers.errors import ArtifactError, CvxlayersError

QUICK = settings(deadline=None, max_examples=40, derandomize=True, suppress_health_check=list(HealthCheck))

x, A, b = cp.Variable(3, name="x"), cp.Parameter((2, 3), name="A"), cp.Parameter(2, nonneg=True, name="b")
PROBLEM = cp.Problem(cp.Minimize(cp.sum_squares(A @ x - b) + cp.norm(x)), [x >= -1, cp.sum(cp.exp(x)) <= 20])
LAYER = CvxpyLayer(PROBLEM, [A, b], [x, PROBLEM.constraints[0].dual_variables[0]])
FILE = artifact.dumps(LAYER.layer)
VALUES = [np.random.default_rng(0).normal(size=(2, 3)), np.ones(2)]
# What may stand where a header wants something else.
STRANGE = [None, True, -1, 0, 2**40, 10**30, 1.5, float("nan"), "x", "", [], {}, [[]], [1], {"a": 1}, [-1], "CLARABEL"]


def refusal(call: Callable[[], object]) -> str:
    """The words in which a call is refused, by the library or by the checks of types while the tests run; else ""."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            call()
        except CvxlayersError as error:
            words = str(error)
        except Exception as error:
            if type(error).__name__ not in ("BeartypeCallHintParamViolation", "TypeCheckError"):
                raise
            words = "of a type that the annotations do not allow"
        else:
            return ""
    assert len(words) > 10
    return words


def members() -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(FILE)) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def packed(parts: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def truncated(rng: random.Random) -> bytes:
    return FILE[: rng.randrange(len(FILE))]


def flipped(rng: random.Random) -> bytes:
    data = bytearray(FILE)
    for _ in range(rng.choice([1, 2, 8])):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def flipped_inside(rng: random.Random) -> bytes:
    """As by someone who writes valid checksums."""
    parts = members()
    name = rng.choice(list(parts))
    data = bytearray(parts[name])
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return packed(parts | {name: bytes(data)})


def without_a_member(rng: random.Random) -> bytes:
    parts = members()
    del parts[rng.choice(list(parts))]
    return packed(parts)


def strange_header(rng: random.Random) -> bytes:
    parts = members()
    node = header = json.loads(parts["header.json"])
    while True:
        key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
        if isinstance(node[key], dict | list) and node[key] and rng.random() < 0.7:
            node = node[key]
            continue
        node[key] = rng.choice(STRANGE)
        return packed(parts | {"header.json": json.dumps(header).encode()})


def strange_array(rng: random.Random) -> bytes:
    parts = members()
    name = rng.choice([name for name in parts if name.endswith(".npy")])
    array = np.load(io.BytesIO(parts[name]))
    changed = rng.choice(
        [
            array.astype(rng.choice(["f4", "i8", "u8", "U3", "c16", "?", "O"])),
            array[:-1],
            np.concatenate([array, array]),
            array[None],
            array * 0 - 1,
            array * 0 + 2**31 - 1,
            np.array([]),
            np.array(3),
            array[::-1].copy(),
        ]
    )
    buffer = io.BytesIO()
    np.save(buffer, changed, allow_pickle=True)
    return packed(parts | {name: buffer.getvalue()})


DAMAGES = [truncated, flipped, flipped_inside, without_a_member, strange_header, strange_array]


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("count", [25, pytest.param(1000, marks=pytest.mark.full)])
def test_a_damaged_file_is_refused_or_still_a_layer(damage, count):
    def use(seed: int) -> None:
        layer = CvxpyLayer.from_layer(artifact.loads(damage(random.Random(seed))))
        outputs = layer(*VALUES)
        layer.vjp(VALUES, [np.ones(output.shape) for output in outputs])

    refused = [seed for seed in range(count) if refusal(lambda seed=seed: use(seed))]
    assert len(refused) > 0.2 * count


def test_a_file_with_code_runs_none(tmp_path):
    """Arrays of objects would be unpickled, which runs what they say: they are refused unread."""

    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    buffer = io.BytesIO()
    np.save(buffer, np.array([Trap()], dtype=object), allow_pickle=True)
    for name in members():
        if name.endswith(".npy"):
            with pytest.raises(ArtifactError, match="no saved layer, or is damaged"):
                artifact.loads(packed(members() | {name: buffer.getvalue()}))
    assert not (tmp_path / "sprung").exists()


ARRAYS = hnp.arrays(
    st.sampled_from([np.float64, np.float32, np.int64, np.bool_, np.complex128, np.dtype("U2"), np.dtype("O")]),
    hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3),
)
ANYTHING = st.one_of(
    ARRAYS, st.none(), st.text(max_size=3), st.floats(), st.integers(), st.lists(st.floats(), max_size=3)
)


@QUICK
@given(first=st.one_of(st.just(VALUES[0]), ANYTHING), second=st.one_of(st.just(VALUES[1]), ANYTHING))
def test_values_of_any_kind_are_taken_or_refused_by_name(first, second):
    shape = None

    def use() -> None:
        nonlocal shape
        shape = LAYER(first, second, on_failure="nan")[0].shape

    assert refusal(use) or shape[-1:] == (3,)


OPTIONS = st.dictionaries(
    st.one_of(
        st.sampled_from(["eps", "max_iters", "time_limit", "verbose", "mode", "solve_method"]), st.text(max_size=4)
    ),
    st.one_of(st.none(), st.booleans(), st.integers(-2, 50), st.floats(), st.text(max_size=4)),
    max_size=2,
)


@QUICK
@given(options=OPTIONS, on_failure=st.one_of(st.none(), st.sampled_from(["raise", "nan", "mask"]), st.text(max_size=4)))
def test_options_of_a_call_are_taken_or_refused_by_name(options, on_failure):
    options = {name: value for name, value in options.items() if not (name == "verbose" and value)}
    refusal(lambda: LAYER(*VALUES, solver_args=options, on_failure=on_failure))


THINGS = st.sampled_from([x, A, b, PROBLEM, PROBLEM.constraints[0], None, 3, "x", [x], cp.sum(x), np.ones(2)])


@QUICK
@given(
    problem=st.one_of(st.just(PROBLEM), THINGS),
    parameters=st.one_of(THINGS, st.lists(THINGS, max_size=3)),
    variables=st.one_of(THINGS, st.lists(THINGS, max_size=2)),
)
def test_what_a_layer_is_made_of_is_taken_or_refused_by_name(problem, parameters, variables):
    refusal(lambda: CvxpyLayer(problem, parameters, variables))
