"""The command line that all workloads share."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from rich.console import Console

from benchmarks.contest import Answer, Contender, race
from benchmarks.report import print_scores, save_scores


def run(
    workload: str,
    sizes: dict[str, int],
    prepare: Callable[..., tuple[Sequence[Contender], Answer]],
    arguments: Sequence[str] | None = None,
) -> None:
    """Reads the sizes of a workload from the command line, runs it, prints a table and writes JSON.

    Args:
        workload: its name.
        sizes: its sizes by name, with their defaults: each becomes an option, and a keyword of `prepare`.
        prepare: makes the contenders and the reference; takes the sizes and `seed`.
        arguments: the command line; by default that of the process.
    """
    parser = argparse.ArgumentParser(
        prog=f"python -m benchmarks.{workload}", formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    for name, default in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=default, help=f"number of {name}")
    parser.add_argument("--repetitions", type=int, default=15, help="rounds that count")
    parser.add_argument("--warmup", type=int, default=3, help="rounds before them")
    parser.add_argument("--seed", type=int, default=0, help="seed of the data")
    parser.add_argument("--threads", type=int, default=None, help="threads of torch; by default its own choice")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder for the JSON file")
    options = parser.parse_args(arguments)
    if options.threads is not None:
        torch.set_num_threads(options.threads)
    chosen = {name: getattr(options, name) for name in sizes}
    contenders, reference = prepare(seed=options.seed, **chosen)
    scores = race(contenders, reference, repetitions=options.repetitions, warmup=options.warmup)
    print_scores(f"{workload}: " + ", ".join(f"{name} {count}" for name, count in chosen.items()), scores)
    path = save_scores(options.out, workload, {"seed": options.seed, **chosen}, scores)
    Console().print(f"All times: {path}")
