"""Each cell of the table of transformations passes against finite differences, or raises what the table says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.transformations import FRAMEWORKS, NOTHING, ROWS, WANTED, cells, table

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.parametrize("row", ROWS)
@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_cell(framework, row):
    cell = cells(framework).get(row, NOTHING)
    if cell.run is None:
        pytest.skip(f"{cell.spelling}: nothing to run here")
    if cell.refusal:
        with pytest.raises(Exception, match=cell.refusal):
            cell.run()
    else:
        np.testing.assert_allclose(np.asarray(cell.run()), WANTED[row](), rtol=1e-6, atol=1e-7)


def test_the_readme_shows_the_table():
    for framework in FRAMEWORKS[1:]:
        pytest.importorskip(framework)
    assert table() in README.read_text()
