"""Tuning: gradient steps on a policy's parameters, through the policy and the world that it acts in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.func import functional_call
from torch.optim.lr_scheduler import LRScheduler

from examples.control.simulator import Cost, Draws, Policy, Simulator, Tensor, draw, draw_each, rollout
from examples.experiment import Context

SEEDS = 100_000  # a run with another seed trains on rollouts whose seeds lie so far away


@dataclass(frozen=True)
class Plan:
    """How long and on how many rollouts a policy is tuned.

    Attributes:
        epochs: gradient steps, each on rollouts that were not seen before.
        horizon: steps of a rollout.
        batch: rollouts of a gradient step.
        test_batch: rollouts on which the curve is measured, the same at every epoch; 0 is `batch`.
        test_seed: their seed.
        clip: largest norm of a gradient.
        fresh: rollouts, of their own seeds, on which start, tuned and fixed policies are compared at the end.
        fresh_seed: the first of these seeds; those of training begin with 1.
    """

    epochs: int
    horizon: int
    batch: int
    test_batch: int = 0
    test_seed: int = 0
    clip: float = float("inf")
    fresh: int = 20
    fresh_seed: int = 10_000


@dataclass(frozen=True)
class Tuned:
    """What tuning found.

    Attributes:
        parameters: the tuned parameters by name; the policy itself holds them too.
        start: the parameters that tuning began with.
        curve: mean test cost before each gradient step, and after the last.
        gradients: norm of the gradient at each step.
        fresh: mean cost of each fresh rollout for "start", "tuned" and each fixed policy: the same rollouts for all.
    """

    parameters: dict[str, Tensor]
    start: dict[str, Tensor]
    curve: list[float]
    gradients: list[float]
    fresh: dict[str, Tensor]

    @property
    def before(self) -> float:
        """Mean test cost at the start."""
        return self.curve[0]

    @property
    def after(self) -> float:
        """Mean test cost of the tuned policy."""
        return self.curve[-1]

    @property
    def best_fixed(self) -> str:
        """The policy with the least mean cost on fresh rollouts, among those that were not tuned."""
        means = {name: float(costs.mean()) for name, costs in self.fresh.items() if name != "tuned"}
        return min(means, key=means.__getitem__)

    def saving(self, rival: str) -> tuple[float, float]:
        """Returns what the tuned policy costs less than a rival on the same fresh rollouts, and the standard error."""
        difference = self.fresh[rival] - self.fresh["tuned"]
        return float(difference.mean()), standard_error(difference)

    def gain(self) -> float:
        """Returns by which part of the start's mean cost tuning lowers it, on fresh rollouts."""
        return self.saving("start")[0] / abs(float(self.fresh["start"].mean()))

    def comparison(self) -> list[str]:
        """Says in a line for each policy what it costs on fresh rollouts."""
        lines = []
        for name, costs in self.fresh.items():
            line = f"{name}: {float(costs.mean()):.4f} ± {standard_error(costs):.4f} on {len(costs)} fresh rollouts"
            saved, error = self.saving(name)
            lines.append(line if name == "tuned" else f"{line}; tuning saves {saved:.4f} ± {error:.4f}")
        return lines


def tune(
    policy: torch.nn.Module,
    simulator: Simulator,
    cost: Cost,
    optimiser: torch.optim.Optimizer,
    plan: Plan,
    *,
    schedule: LRScheduler | None = None,
    fixed: Mapping[str, Policy] | None = None,
    project: Callable[[], None] | None = None,
    context: Context | None = None,
) -> Tuned:
    """Tunes a policy by gradient descent on its mean cost over simulated rollouts.

    Args:
        policy: a module that takes states (batch, n) to controls (batch, m); its parameters are tuned in place.
        simulator: the world that it acts in, differentiable in states and controls.
        cost: (x, u, next x) → the cost of a step, one number for each rollout.
        optimiser: steps on the policy's parameters.
        plan: how long, and on how many rollouts.
        schedule: changes the optimiser's step size after each epoch.
        fixed: other policies, by name, to compare with at the end.
        project: called after each step, to bring the parameters back to where they are meaningful.
        context: seed, progress bar, and the checkpoint from which an interrupted run goes on.
    """
    context = context or Context()
    run = _Run(policy, optimiser, schedule)
    run.restore(context)
    test = draw(simulator, plan.test_seed, plan.test_batch or plan.batch, plan.horizon)

    def measure() -> float:
        return float(rollout_costs(policy, simulator, cost, test).mean())

    for epoch in context.track(range(run.epoch, plan.epochs), "tuning"):
        train = draw(simulator, SEEDS * context.seed + epoch + 1, plan.batch, plan.horizon)
        run.curve.append(measure())
        optimiser.zero_grad()
        rollout(policy, simulator, cost, train).costs.mean().backward()
        run.gradients.append(float(torch.nn.utils.clip_grad_norm_(policy.parameters(), plan.clip)))
        optimiser.step()
        if schedule is not None:
            schedule.step()
        if project is not None:
            project()
        context.keep(run.state(epoch + 1))
    fresh = draw_each(simulator, range(plan.fresh_seed, plan.fresh_seed + plan.fresh), plan.horizon)
    contestants = {"start": _at(policy, run.start), "tuned": policy, **(fixed or {})}
    costs = {name: rollout_costs(rival, simulator, cost, fresh) for name, rival in contestants.items()}
    return Tuned(_copy(policy), run.start, [*run.curve, measure()], run.gradients, costs)


def rollout_costs(policy: Policy, simulator: Simulator, cost: Cost, draws: Draws) -> Tensor:
    """Returns the mean cost of each rollout, without gradients."""
    with torch.no_grad():
        return rollout(policy, simulator, cost, draws).costs.mean(dim=0)


def standard_error(costs: Tensor) -> float:
    """Returns the standard error of the mean."""
    return float(costs.std() / len(costs) ** 0.5) if len(costs) > 1 else float("nan")


class _Run:
    """What a checkpoint holds: everything that changes from epoch to epoch."""

    def __init__(self, policy: torch.nn.Module, optimiser: torch.optim.Optimizer, schedule: LRScheduler | None) -> None:
        self.policy, self.optimiser, self.schedule = policy, optimiser, schedule
        self.epoch, self.start = 0, _copy(policy)
        self.curve: list[float] = []
        self.gradients: list[float] = []

    def state(self, epoch: int) -> dict[str, object]:
        schedule = {} if self.schedule is None else self.schedule.state_dict()
        kept = {"policy": self.policy.state_dict(), "optimiser": self.optimiser.state_dict(), "schedule": schedule}
        return {"epoch": epoch, "start": self.start, "curve": self.curve, "gradients": self.gradients, **kept}

    def restore(self, context: Context) -> None:
        state = context.resume()
        if state is None:
            return
        self.epoch, self.start = state["epoch"], state["start"]
        self.curve, self.gradients = state["curve"], state["gradients"]
        self.policy.load_state_dict(state["policy"])
        self.optimiser.load_state_dict(state["optimiser"])
        if self.schedule is not None:
            self.schedule.load_state_dict(state["schedule"])


def _copy(policy: torch.nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in policy.named_parameters()}


def _at(policy: torch.nn.Module, parameters: dict[str, Tensor]) -> Policy:
    return lambda x: functional_call(policy, parameters, (x,))
