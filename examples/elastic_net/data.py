"""The diabetes study (442 people), split at random several times, each split cut into folds for cross-validation."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from sklearn.datasets import load_diabetes
from sklearn.model_selection import KFold, train_test_split

from examples.elastic_net.moments import Moments, moments, stack

# Age, sex, body mass index, mean blood pressure, and six serum measurements: total cholesterol, low- and high-density
# lipoproteins, their ratio, the logarithm of triglycerides, and glucose.
MEASUREMENTS = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
KINDS = ("measurement", "square", "interaction")


@dataclass(frozen=True)
class Features:
    """The predictors of all people.

    Attributes:
        values: one row per person, one column per predictor.
        names: one per predictor.
        kinds: index into `KINDS`, one per predictor.
    """

    values: Float[np.ndarray, "people features"]
    names: tuple[str, ...]
    kinds: Int[np.ndarray, " features"]


@dataclass(frozen=True)
class Split:
    """One random division of the people, standardised by the mean and deviation of its training part.

    Attributes:
        X: predictors of the training part.
        y: responses of the training part.
        X_test: predictors of the test part.
        y_test: responses of the test part.
        folds: pairs of row numbers of the training part: those to fit on, those to validate on.
    """

    X: Float[np.ndarray, "train features"]
    y: Float[np.ndarray, " train"]
    X_test: Float[np.ndarray, "test features"]
    y_test: Float[np.ndarray, " test"]
    folds: list[tuple[Int[np.ndarray, " fit"], Int[np.ndarray, " held_out"]]]


@dataclass(frozen=True)
class Study:
    """All splits, as arrays for scikit-learn and as moments for the layer.

    Attributes:
        features: the predictors.
        splits: the divisions of the people.
        fit: moments of what each fold fits on, (splits, folds).
        held_out: moments of what each fold is validated on, (splits, folds).
        train: moments of the whole training parts, (splits, 1).
        test: moments of the test parts, (splits, 1).
    """

    features: Features
    splits: tuple[Split, ...]
    fit: Moments
    held_out: Moments
    train: Moments
    test: Moments


def load_study(splits: int, folds: int, seed: int, *, expand: bool) -> Study:
    """Loads the data that scikit-learn ships and divides it.

    Args:
        splits: how many random divisions into three quarters for training and a quarter for testing.
        folds: folds of each training part.
        seed: seed of the first division; the others count on from it.
        expand: whether to add squares and interactions, 64 predictors in all as in Efron et al. (2004).
    """
    X, y = map(np.asarray, load_diabetes(return_X_y=True))
    features = _expand(X) if expand else Features(X, MEASUREMENTS, np.zeros(len(MEASUREMENTS), dtype=int))
    parts = tuple(_split(features.values, y, folds, seed + index) for index in range(splits))
    return Study(
        features,
        parts,
        fit=stack([[moments(s.X[fit], s.y[fit], s.X[fit], s.y[fit]) for fit, _ in s.folds] for s in parts]),
        held_out=stack([[moments(s.X[out], s.y[out], s.X[fit], s.y[fit]) for fit, out in s.folds] for s in parts]),
        train=stack([[moments(s.X, s.y, s.X, s.y)] for s in parts]),
        test=stack([[moments(s.X_test, s.y_test, s.X, s.y)] for s in parts]),
    )


def _expand(X: Float[np.ndarray, "people measurements"]) -> Features:
    """Adds the squares of the measurements and their products in pairs; sex, with two values, has no square."""
    names = MEASUREMENTS
    pairs = [(i, j) for i in range(len(names)) for j in range(i, len(names)) if i != j or names[i] != "sex"]
    pairs.sort(key=lambda pair: pair[0] != pair[1])
    columns = [X, *(X[:, [i]] * X[:, [j]] for i, j in pairs)]
    labels = [f"{names[i]}²" if i == j else f"{names[i]}·{names[j]}" for i, j in pairs]
    kinds = [0] * len(names) + [1 if i == j else 2 for i, j in pairs]
    return Features(np.hstack(columns), (*names, *labels), np.array(kinds))


def _split(X: Float[np.ndarray, "people features"], y: Float[np.ndarray, " people"], folds: int, seed: int) -> Split:
    train, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=seed)
    mean, deviation = X[train].mean(axis=0), X[train].std(axis=0)
    y_mean, y_deviation = y[train].mean(), y[train].std()
    X, y = (X - mean) / deviation, (y - y_mean) / y_deviation
    cut = KFold(folds, shuffle=True, random_state=seed).split(X[train])
    return Split(X[train], y[train], X[test], y[test], list(cut))
