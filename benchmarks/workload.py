"""What a workload is: rows, and for each the contenders and an independent reference."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.contest import Answer, Entry


@dataclass(frozen=True)
class Bar:
    """How many times faster than something else this library has to be, and is wanted to be.

    Attributes:
        must: the ratio of their seconds to ours, forward and backward, that has to be reached.
        want: the ratio that is aimed at.
        against: the contender's name, or what it starts with; the best accurate peer where it is empty.
    """

    must: float
    want: float
    against: str = ""


@dataclass(frozen=True)
class Row:
    """One line of the results: a workload at one size.

    Attributes:
        workload: its name.
        sizes: keywords of the workload's `prepare`.
        batch: programs solved at once.
        bars: what is asked of this library here.
        memory: whether each contender is also run in a process of its own, to see how much memory it needs.
    """

    workload: str
    sizes: Mapping[str, int]
    batch: int
    bars: Sequence[Bar] = ()
    memory: bool = False

    @property
    def name(self) -> str:
        """What the row is called, as in `dense_qp-n32-batch128`."""
        return "-".join([self.workload, *(f"{name}{size}" for name, size in self.sizes.items()), f"batch{self.batch}"])


@dataclass(frozen=True)
class Task:
    """What the contenders of a row do.

    Attributes:
        entries: the contenders; this library first.
        reference: computes the exact answer, by none of their methods.
    """

    entries: Sequence[Entry]
    reference: Callable[[], Answer]


@dataclass(frozen=True)
class Workload:
    """A kind of program.

    Attributes:
        title: what it is, in one line.
        rows: its sizes, in the order of the table.
        prepare: makes the data, the contenders and the reference; takes the sizes, `batch` and `seed`.
    """

    title: str
    rows: Sequence[Row] = field(default_factory=tuple)
    prepare: Callable[..., Task] = field(kw_only=True)
