"""Two tables of real data: the consumption of cars, and the progress of diabetes."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float

Units = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


@dataclass(frozen=True)
class TableOfData:
    """Samples with their targets, the names of the features, and that of the target."""

    x: Float[torch.Tensor, "samples features"]
    y: Float[torch.Tensor, " samples"]
    names: tuple[str, ...]
    target: str

    def __getitem__(self, samples: torch.Tensor) -> TableOfData:
        """Returns some of the samples."""
        return TableOfData(self.x[samples], self.y[samples], self.names, self.target)

    def units(self) -> Units:
        """Returns means and deviations of features and target."""
        return self.x.mean(dim=0), self.x.std(dim=0), self.y.mean(), self.y.std()

    def standardised(self, units: Units) -> TableOfData:
        """Returns the table in the units of another, of which it may be a part."""
        x_mean, x_deviation, y_mean, y_deviation = units
        return TableOfData((self.x - x_mean) / x_deviation, (self.y - y_mean) / y_deviation, self.names, self.target)


def load_cars() -> TableOfData:
    """Returns 392 cars of the years 1970 to 1982 with their miles per gallon (UCI's Auto MPG, by vega_datasets)."""
    from vega_datasets import data

    columns = {
        "cylinders": "Cylinders",
        "displacement": "Displacement",
        "horsepower": "Horsepower",
        "weight": "Weight_in_lbs",
        "acceleration": "Acceleration",
    }
    cars = [car for car in json.loads(data.cars.raw()) if car["Miles_per_Gallon"] and car["Horsepower"]]
    features = [[float(car[column]) for car in cars] for column in columns.values()]
    features.append([float(car["Year"][:4]) for car in cars])
    features += [[float(car["Origin"] == origin) for car in cars] for origin in ("USA", "Japan")]
    x = torch.tensor(features, dtype=torch.float64).T
    y = torch.tensor([car["Miles_per_Gallon"] for car in cars], dtype=torch.float64)
    return TableOfData(x, y, (*columns, "year", "from USA", "from Japan"), "miles per gallon")


def load_patients() -> TableOfData:
    """Returns 442 patients with the progress of their diabetes in a year (Efron et al., 2004, by scikit-learn)."""
    from sklearn.datasets import load_diabetes

    found: Any = load_diabetes()
    names = tuple(found["feature_names"])
    return TableOfData(torch.as_tensor(found["data"]), torch.as_tensor(found["target"]), names, "progress of illness")


TABLES: Mapping[str, Callable[[], TableOfData]] = {"cars": load_cars, "patients": load_patients}
