"""Task-driven metric learning: the metric of a least-squares fit is learned from the decisions that the fit leads to."""
