"""Command line of the example: `python -m examples.smoothing`."""

from examples.experiment import main
from examples.smoothing.paths import EXPERIMENT

EXPERIMENTS = [EXPERIMENT]

if __name__ == "__main__":
    main("smoothing", EXPERIMENTS)
