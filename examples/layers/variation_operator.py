"""Total-variation denoising of images with the operator learned: the rows of D in ‖D y‖₁.

References: Amos and Kolter (2017), OptNet, who learn it on signals; Chen, Pock, Ranftl and Bischof (2013), Revisiting
loss-specific training of filter-based MRFs for image restoration.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np
import torch
from jaxtyping import Float

from cvxlayers.torch import CvxpyLayer
from examples.experiment import Context, Experiment, Outcome

SIDE = 8
PIXELS = SIDE**2

Images = Float[torch.Tensor, "images pixels"]
Operator = Float[torch.Tensor, "rows pixels"]


@dataclass(frozen=True)
class Settings:
    """How many repetitions on other images, images to learn from and to test on, their noise, and how to train."""

    repeats: int = 5
    images: int = 800
    tests: int = 200
    noise: float = 0.25
    penalty_steps: int = 20
    steps: int = 60
    batch: int = 24
    lr: float = 0.002


def first_differences(side: int = SIDE) -> Float[np.ndarray, "rows pixels"]:
    """Returns the differences of neighbours in an image, along rows and along columns."""
    step, one = np.diff(np.eye(side), axis=0), np.eye(side)
    return np.concatenate([np.kron(one, step), np.kron(step, one)])


def denoising_layer(rows: int, pixels: int = PIXELS) -> CvxpyLayer:
    """Returns the layer (x, D) ↦ argmin ½ ‖y − x‖² + ‖D y‖₁."""
    x, D, y = cp.Parameter(pixels), cp.Parameter((rows, pixels)), cp.Variable(pixels)
    objective = 0.5 * cp.sum_squares(y) - x @ y + cp.norm1(D @ y)
    return CvxpyLayer(cp.Problem(cp.Minimize(objective)), [x, D], [y])


def peak_signal_to_noise(guess: Images, true: Images) -> float:
    """Returns −10 log₁₀ of the mean square error, in decibels: of images between zero and one."""
    return -10 * (guess - true).square().mean().log10().item()


class Fixed(torch.nn.Module):
    """First differences, with one penalty for all."""

    def __init__(self) -> None:
        torch.nn.Module.__init__(self)
        self.D = torch.as_tensor(first_differences())
        self.log_penalty = torch.nn.Parameter(torch.tensor(0.1, dtype=torch.float64).log())

    def forward(self) -> Operator:
        """Returns the operator."""
        return self.log_penalty.exp() * self.D


class Learned(torch.nn.Module):
    """An operator with every entry free."""

    def __init__(self, start: Operator) -> None:
        torch.nn.Module.__init__(self)
        self.D = torch.nn.Parameter(start.detach().clone())

    def forward(self) -> Operator:
        """Returns the operator."""
        return self.D


def run(settings: Settings, context: Context) -> Outcome:
    """Learns the penalty of first differences, then the whole operator, and compares both on other images."""
    layer = denoising_layer(len(first_differences()))
    runs = [_repeat(layer, settings, context.seed + index, context) for index in range(settings.repeats)]
    names = "psnr_noisy", "psnr_first_differences", "psnr_learned"
    by_name = dict(zip(names, zip(*(run.ratios for run in runs), strict=True), strict=True))
    gains = np.subtract(by_name["psnr_learned"], by_name["psnr_first_differences"])
    metrics: dict[str, Any] = {name: float(np.mean(values)) for name, values in by_name.items()}
    metrics |= {
        "gain_mean": float(gains.mean()),
        "gain_deviation": float(gains.std()),
        "gain_least": float(gains.min()),
    }
    metrics |= {f"{name}_each": list(values) for name, values in by_name.items()}
    return Outcome(metrics, ["decibels, on images not learned from"], lambda figure: _draw(figure, runs[0]))


@dataclass(frozen=True)
class Repeat:
    """Signal-to-noise ratios on new images, some of these images, and the learned operator."""

    ratios: tuple[float, ...]
    shown: tuple[Images, ...]
    operator: Operator


def _repeat(layer: CvxpyLayer, settings: Settings, seed: int, context: Context) -> Repeat:
    rng = np.random.default_rng(seed)
    clean = _images()[rng.permutation(len(_images()))[: settings.images + settings.tests]]
    noisy = clean + settings.noise * torch.as_tensor(rng.normal(size=clean.shape))
    (train, train_noisy), (test, test_noisy) = zip(
        *(part.split([settings.images, settings.tests]) for part in (clean, noisy)), strict=True
    )
    fixed = Fixed()
    _train(layer, fixed, train, train_noisy, settings.penalty_steps, 0.1, settings, context)
    learned = Learned(fixed())
    _train(layer, learned, train, train_noisy, settings.steps, settings.lr, settings, context)
    with torch.no_grad():
        guesses = [test_noisy, *(layer(test_noisy, operator())[0] for operator in (fixed, learned))]
    ratios = tuple(peak_signal_to_noise(guess, test) for guess in guesses)
    return Repeat(ratios, tuple(images[:4] for images in (test, *guesses)), learned().detach())


def _images() -> Images:
    """Returns handwritten digits, between zero and one."""
    from sklearn.datasets import load_digits

    return torch.as_tensor(load_digits().data / 16)


def _train(
    layer: CvxpyLayer,
    operator: torch.nn.Module,
    clean: Images,
    noisy: Images,
    steps: int,
    lr: float,
    settings: Settings,
    context: Context,
) -> None:
    """Lowers the square error by Adam with falling steps."""
    rng, optimizer = np.random.default_rng(context.seed), torch.optim.Adam(operator.parameters(), lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for _ in context.track(range(steps), "training"):
        batch = rng.choice(len(clean), settings.batch, replace=False)
        optimizer.zero_grad()
        (layer(noisy[batch], operator())[0] - clean[batch]).square().sum(dim=1).mean().backward()
        optimizer.step()
        schedule.step()


def _draw(figure: Any, shown: Repeat) -> None:
    left, right = figure.subfigures(1, 2, width_ratios=[1, 1])
    titles = "image", "noisy", "first differences", "learned"
    grid = left.subplots(4, 4)
    for column, (title, images) in enumerate(zip(titles, shown.shown, strict=True)):
        grid[0, column].set_title(title, fontsize=9)
        for axes, image in zip(grid[:, column], images, strict=True):
            axes.imshow(image.reshape(SIDE, SIDE), cmap="gray", vmin=0, vmax=1)
            axes.set_axis_off()
    right.suptitle("the rows of largest norm of the learned operator", fontsize=10)
    largest = shown.operator[shown.operator.norm(dim=1).argsort(descending=True)[:16]]
    bound = largest.abs().max().item()
    for axes, row in zip(right.subplots(4, 4).ravel(), largest, strict=True):
        axes.imshow(row.reshape(SIDE, SIDE), cmap="RdBu", vmin=-bound, vmax=bound)
        axes.set_axis_off()


VARIATION_OPERATOR = Experiment(
    "tv-operator",
    "Total-variation denoising of digits: the operator learned, against first differences.",
    run,
    {"ci": Settings(1, 200, 60, 0.25, 10, 16, 16, 0.002), "full": Settings()},
)
