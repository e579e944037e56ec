"""Policies and the plants they act on: convex problems that decide, and predictive control of non-linear plants."""
