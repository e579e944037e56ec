"""Control: convex policies, and model predictive control of non-linear plants, learned through the layer."""
