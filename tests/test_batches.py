"""Arrays of a batch: what is asked of their entries, and of which."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayers.batches import is_moving, largest

LAYOUTS = {
    "rows": lambda rows: rows,
    "columns": np.asfortranarray,
    "backwards": lambda rows: rows[::-1],
    "every other": lambda rows: np.repeat(np.repeat(rows, 2, axis=0), 2, axis=1)[::2, ::2],
    "one": lambda rows: rows[-1:],
    "shared": lambda rows: np.broadcast_to(rows[-1:], rows.shape),
    "shared numbers": lambda rows: np.broadcast_to(rows[:, -1:], rows.shape),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("value", [1e-300, -1.0, np.nan, np.inf])
def test_one_entry_moves_a_batch_wherever_it_stands(layout, value):
    still = np.zeros((3, 4))
    assert not is_moving(LAYOUTS[layout](still))
    still[2, 3] = value
    assert is_moving(LAYOUTS[layout](still))


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (1, 0)])
def test_what_has_no_entries_does_not_move(shape):
    assert not is_moving(np.ones(shape))
    assert not is_moving(np.broadcast_to(np.ones((1, shape[1])), shape))


def test_of_what_all_items_share_one_row_is_looked_at(monkeypatch):
    looked = []
    monkeypatch.setattr("cvxlayers.batches.some", lambda rows: bool(looked.append(rows.shape)))
    is_moving(np.broadcast_to(np.zeros((1, 4)), (1000, 4)))
    is_moving(np.zeros((1000, 4)))
    assert looked == [(1, 4), (1000, 4)]


@pytest.mark.parametrize("width", [0, 3, 2**15])
def test_the_largest_of_few_and_of_many_entries_is_the_same(width, rng):
    values = rng.normal(size=(3, width))
    np.testing.assert_array_equal(largest(values), np.abs(values).max(axis=1, initial=0.0))
    if width:
        values[1, -1] = np.nan
        assert np.isnan(largest(values)).tolist() == [False, True, False]
