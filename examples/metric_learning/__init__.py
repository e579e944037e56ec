"""Task-driven metric learning: the metric of a fit is learned from the decisions it leads to."""
