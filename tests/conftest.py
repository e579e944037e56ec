"""Fixtures that every test may use."""

from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def rng() -> np.random.Generator:
    """A seeded generator: every test sees the same numbers in every run."""
    return np.random.default_rng(0)
