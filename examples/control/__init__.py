"""Policies and the worlds they act in: convex problems that decide, and are tuned by gradients through a simulator."""
