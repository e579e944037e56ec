"""The command line: `python -m cvxlayers`."""
