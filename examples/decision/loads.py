"""Net loads of fifteen German regions: standard load profiles at measured weather, less the power of the sun.

References: BDEW (2025), standard load profiles H25 and G25; BDEW (2018), profiles of heat by temperature; Deutscher
Wetterdienst (2011), test reference years, composed of measurements of 1988 to 2007. All come with demandlib.
"""

from __future__ import annotations

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int

REGIONS, DAYS, HOURS = 15, 365, 24
# Mean power, in GW, of households, businesses and heat pumps, and of the sun.
SHARES = 0.6, 0.6, 0.6, -0.3
# Columns of a reference year: temperature in °C, direct and diffuse irradiance in W/m².
_TEMPERATURE, _DIRECT, _DIFFUSE = 8, 13, 14

Series = Float[np.ndarray, "regions days hours"]


@dataclass(frozen=True)
class Days:
    """What is known of a day the evening before, its net loads in GW, and the region.

    Attributes:
        x: features of mean zero and size one, and a one.
        load: one for each hour.
        region: from 0.
    """

    x: Float[torch.Tensor, "days features"]
    load: Float[torch.Tensor, "days hours"]
    region: Int[np.ndarray, " days"]

    def take(self, chosen: Int[np.ndarray, " chosen"]) -> Days:
        """Returns some of the days."""
        return Days(self.x[chosen], self.load[chosen], self.region[chosen])


@functools.cache
def load_days() -> Days:
    """Returns all days but the first two of each region, in order.

    Features: yesterday's loads; the mean, highest and lowest temperature of the two days before; weekday and season.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what a later pandas will refuse of demandlib
        load, temperature = _net_loads()
    summary = np.stack([temperature.mean(axis=2), temperature.max(axis=2), temperature.min(axis=2)], axis=2)
    known = [load[:, 1:-1], summary[:, 1:-1], summary[:, :-2]]
    days = np.arange(2, DAYS)
    calendar = np.broadcast_to(_calendar(days), (REGIONS, len(days), 10))
    features = np.concatenate([*known, calendar], axis=2).reshape(REGIONS * len(days), -1)
    features = (features - features.mean(axis=0)) / features.std(axis=0)
    x = np.concatenate([features, np.ones((len(features), 1))], axis=1)
    region = np.repeat(np.arange(REGIONS), len(days))
    return Days(torch.as_tensor(x), torch.as_tensor(load[:, 2:].reshape(-1, HOURS)), region)


def _calendar(days: Int[np.ndarray, " days"]) -> Float[np.ndarray, "days 10"]:
    """Returns the weekday, Friday by zeros, and the season by two waves; the year begins on a Friday, as 2010 did."""
    angle = 2 * np.pi * days / DAYS
    waves = [wave(count * angle) for count in (1, 2) for wave in (np.sin, np.cos)]
    return np.concatenate([np.eye(7)[days % 7][:, 1:], np.stack(waves, axis=1)], axis=1)


def _net_loads() -> tuple[Series, Series]:
    """Returns the net loads in GW, and the temperatures."""
    import demandlib
    import pandas as pd
    from demandlib import bdew

    hours: Any = pd.date_range("2010-01-01", periods=DAYS * HOURS, freq="h")
    quarters: Any = pd.date_range("2010-01-01", periods=4 * DAYS * HOURS, freq="15min")
    electric = [np.asarray(profile(quarters)).reshape(-1, 4).mean(axis=1) for profile in (bdew.H25, bdew.G25)]
    folder = Path(demandlib.__file__).parent / "vdi" / "resources_weather"
    loads, temperatures = [], []
    for region in range(1, REGIONS + 1):
        weather = _read(folder / f"TRY2010_{region:02d}_Jahr.dat")
        temperature = weather[:, _TEMPERATURE]
        house = {"shlp_type": "EFH", "building_class": 1, "wind_class": 0, "annual_heat_demand": 1.0}
        warmth: Any = bdew.HeatBuilding(hours, temperature=pd.Series(temperature, hours), **house)
        heat, sun = warmth.get_bdew_profile().to_numpy(), weather[:, _DIRECT] + weather[:, _DIFFUSE]
        parts = [*electric, heat, sun]
        loads.append(sum(share * part / part.mean() for share, part in zip(SHARES, parts, strict=True)))
        temperatures.append(temperature)
    shape = REGIONS, DAYS, HOURS
    return np.array(loads).reshape(shape), np.array(temperatures).reshape(shape)


def _read(path: Path) -> Float[np.ndarray, "hours columns"]:
    """Returns the rows below the line of stars."""
    rows = path.read_text(encoding="latin-1").split("***")[1].split("\n")
    return np.array([[float(number) for number in row.split()] for row in rows if row.strip()])
