"""What softmax, sparsemax and the soft top-k have in common: one vector of scores, and a formula."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch

from benchmarks.contest import Answer, Array, Entry
from benchmarks.peers.layers import Text, entries_of
from benchmarks.torch_layer import layer_contender
from benchmarks.workload import Bar, Row, Task, Workload

BY_HAND = "torch, closed form"
Formula = Callable[[torch.Tensor], torch.Tensor]
Texts = Callable[..., Text]


def workload(name: str, title: str, text: Texts, formula: Formula, exact: Callable[[Array], Array], quadratic: bool):
    """Returns the workload of a function of scores.

    Args:
        name: its name.
        title: what it is.
        text: its problem, of the number of scores and the factor by which x ≥ 0 is multiplied.
        formula: the function written in PyTorch.
        exact: the same with its Jacobian, of one item, in numpy: the reference.
        quadratic: whether the cost is quadratic.
    """

    def prepare(*, n: int, batch: int, seed: int) -> Task:
        rng = np.random.default_rng(seed)
        data, weights = {"c": rng.normal(size=(batch, n))}, rng.normal(size=(batch, n))
        by_hand = Entry(BY_HAND, lambda: layer_contender(lambda c: (formula(c),), data, weights), "by hand")
        # cvxpylayers 1.2 with Moreau drops x >= 0, but not 2 * x >= 0.
        entries = entries_of(
            partial(text, n), data, weights, peer_text=partial(text, n, 2.0), quadratic=quadratic, dense=False
        )
        return Task([*entries, by_hand], lambda: _answer(exact, data["c"], weights))

    bars = [Bar(0.1, 0.1, BY_HAND)]
    rows = [Row(name, {"n": 100}, batch, bars if batch == 128 else []) for batch in (1, 128)]
    return Workload(title, rows, prepare=prepare)


def _answer(exact: Callable[[Array], Array], c: Array, weights: Array) -> Answer:
    pairs = [exact(item) for item in c]
    solution, jacobian = np.stack([pair[0] for pair in pairs]), np.stack([pair[1:] for pair in pairs])
    return Answer(solution, {"c": np.einsum("bij,bi->bj", jacobian, weights)})
