"""Sparse matrices of a batch: one pattern, and the values of each item."""

from cvxlayers.patterns.pattern import Pattern as Pattern
