"""Predict, then optimise: predictions are trained on what the decisions made with them cost."""
