"""Idioms: structures of programs that solvers and derivatives of their own serve, found when a problem is compiled."""
