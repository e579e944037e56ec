"""What the README shows is run: every Python block, in order, in one namespace, as a reader would type them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path
from types import CodeType

import pytest

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
READMES = [
    README,
    ROOT / "CONTRIBUTING.md",
    *ROOT.glob("examples/*/README.md"),
    ROOT / "benchmarks" / "README.md",
    *(path for path in ROOT.glob("docs/**/*.md") if "_build" not in path.parts),
]
TARGETS = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)


def blocks() -> Iterator[tuple[int, str]]:
    """The Python blocks with the numbers of their first lines."""
    text = README.read_text()
    for match in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        yield text.count("\n", 0, match.start(1)) + 1, match.group(1)


def compiled(line: int, source: str) -> CodeType:
    """Code whose tracebacks name the lines of the README."""
    return compile("\n" * (line - 1) + source, str(README), "exec")


@pytest.fixture(scope="module")
def namespace(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, object]]:
    """What a reader has after all blocks, in a folder of their own."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("jax")
    pytest.importorskip("tensorflow")
    torch.manual_seed(0)
    names: dict[str, object] = {}
    with contextlib.chdir(tmp_path_factory.mktemp("readme")):
        for line, source in blocks():
            exec(compiled(line, source), names)
        yield names


def test_every_block_runs(namespace):
    assert len(list(blocks())) >= 4
    for name in ("A_batch", "b_shared", "L"):
        gradient = namespace[name].grad
        assert gradient.shape == namespace[name].shape
        assert gradient.abs().sum() > 0


def test_shapes_are_as_said(namespace):
    assert namespace["x_star"].shape == (8, 3)
    assert namespace["x_value"].shape == (8, 3)
    assert [array.shape for array in (namespace["A_bar"], namespace["b_bar"])] == [(8, 5, 3), (5,)]


def test_failure_is_as_said(namespace):
    torch = pytest.importorskip("torch")
    assert str(namespace["kept"]).startswith("1 of 3 programs were not solved: item 1: infeasible")
    expected = torch.tensor([1.0, torch.nan, 1.0])
    torch.testing.assert_close(namespace["v_star"], expected, equal_nan=True, rtol=0, atol=1e-7)


def test_optnet_takes_under_ten_lines():
    (source,) = [source for _, source in blocks() if "def optnet" in source]
    assert len(source.splitlines()) < 10


def test_console_commands_exist():
    commands = re.findall(r"(?:`|^ {4})make ([a-z]+)", README.read_text(), re.MULTILINE)
    assert {"demo", "test", "bench"} <= set(commands) <= set(TARGETS)


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_to_files(path):
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text()):
        if "://" not in target:
            assert (path.parent / target).exists(), target
