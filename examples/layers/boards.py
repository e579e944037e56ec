"""Sudoku of size 4 × 4: its 288 solutions, its rules as equations, and boards with exactly one solution.

A board is a vector of 64 numbers, cell by cell, four for each: one where the digit stands there, zero elsewhere.
"""

from __future__ import annotations

import functools
import itertools
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int

CELLS, DIGITS = 16, 4
ENTRIES = CELLS * DIGITS

Boards = Float[torch.Tensor, "boards entries"]


@dataclass(frozen=True)
class Puzzles:
    """Boards with gaps, their only solutions, and the row of `solutions` that each was made from."""

    given: Boards
    solved: Boards
    grid: Int[np.ndarray, " boards"]

    def solved_by(self, answer: Boards) -> Bool[torch.Tensor, " boards"]:
        """Returns which boards are right in all their cells, each cell by its largest entry."""
        return (digits(answer) == digits(self.solved)).all(dim=1)


def digits(board: Boards) -> Int[torch.Tensor, "boards cells"]:
    """Returns the digit of each cell."""
    return board.unflatten(-1, (CELLS, DIGITS)).argmax(dim=-1)


def rules() -> Float[np.ndarray, "40 entries"]:
    """Returns rows R with R z = 1: one digit a cell, each digit once a row, column and block: 40 of 64.

    The other 24 follow from these. Kept is each row independent of those before it.
    """
    cell, digit = np.divmod(np.arange(ENTRIES), DIGITS)
    row, column = np.divmod(cell, 4)
    block = 2 * (row // 2) + column // 2
    numbers = np.arange(4)
    units = [(unit == numbers[:, None, None]) & (digit == numbers[:, None]) for unit in (row, column, block)]
    every = np.concatenate([cell == np.arange(CELLS)[:, None], *(unit.reshape(CELLS, ENTRIES) for unit in units)])
    every = every.astype(float)
    kept: list[int] = []
    for index in range(len(every)):
        if np.linalg.matrix_rank(every[[*kept, index]]) > len(kept):
            kept.append(index)
    return every[kept]


@functools.cache
def solutions() -> Int[np.ndarray, "288 cells"]:
    """Returns every full board that keeps the rules."""
    permutations = list(itertools.permutations(range(4)))
    grids = np.array(list(itertools.product(permutations, repeat=4)), dtype=np.int8)
    blocks = grids.reshape(-1, 2, 2, 2, 2).swapaxes(2, 3).reshape(-1, 4, 4)
    right = [(np.sort(unit, axis=-1) == np.arange(4)).all(axis=(1, 2)) for unit in (grids.swapaxes(1, 2), blocks)]
    return grids[right[0] & right[1]].reshape(-1, CELLS).astype(int)


def draw_puzzles(grids: Int[np.ndarray, " boards"], rng: np.random.Generator) -> Puzzles:
    """Empties the cells of each solution in random order, all that can be emptied: one more, and there would be two."""
    full = solutions()
    given, solved = np.zeros((2, len(grids), CELLS, DIGITS))
    for index, grid in enumerate(grids):
        clues = _emptied(full, full[grid], rng)
        solved[index] = np.eye(DIGITS)[full[grid]]
        given[index, clues] = solved[index, clues]
    tensors = (torch.as_tensor(array.reshape(-1, ENTRIES)) for array in (given, solved))
    return Puzzles(*tensors, grid=grids)


def _emptied(
    full: Int[np.ndarray, "288 cells"], grid: Int[np.ndarray, " cells"], rng: np.random.Generator
) -> list[int]:
    """Returns the clues that are left."""
    agrees, clues = full == grid, list(range(CELLS))
    for cell in rng.permutation(CELLS):
        fewer = [clue for clue in clues if clue != cell]
        if agrees[:, fewer].all(axis=1).sum() == 1:
            clues = fewer
    return clues
