"""Sequential quadratic programs against closed forms, finite differences, and the published gradients."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest

from cvxlayers.errors import CvxlayersWarning, DerivativeWarning, InputError, OptionError, ShapeError, SolverError
from cvxlayers.program import Status

torch = pytest.importorskip("torch")

from cvxlayers.sqp import MPC, SQP, Record, receding_horizon  # noqa: E402

MODES = ("implicit", "gauss_newton", "unroll", "truncated(3)", "dlm")
EXACT = tuple(mode for mode in MODES if mode != "gauss_newton")


def tensor(values, **keywords):
    return torch.tensor(values, dtype=torch.float64, **keywords)


def distance(z, target, radius):
    return ((z - target) ** 2).sum()


def on_sphere(z, target, radius):
    return ((z * z).sum() - radius**2)[None]


def sphere(**keywords):
    return SQP(distance, equalities=on_sphere, **keywords)


@pytest.fixture
def projection():
    """Points, radii, and the projections of the points on their spheres."""
    generator = torch.Generator().manual_seed(0)
    target = torch.randn(5, 3, generator=generator, dtype=torch.float64).requires_grad_()
    radius = (torch.rand(5, generator=generator, dtype=torch.float64) + 0.5).requires_grad_()
    return target, radius, target / target.norm(dim=1, keepdim=True) * radius[:, None]


START = torch.ones(5, 3, dtype=torch.float64)
WEIGHTS = torch.linspace(-1.0, 2.0, 15, dtype=torch.float64).reshape(5, 3)


def test_projection_on_a_sphere(projection):
    target, radius, expected = projection
    result = sphere().solve(START, target, radius)
    torch.testing.assert_close(result.z, expected, atol=1e-7, rtol=0)
    assert (result.status == Status.SOLVED).all()
    assert (result.violation < 1e-8).all()
    assert isinstance(result.log[0], Record)
    assert len(result.log) == result.iterations.max()


@pytest.mark.parametrize("backward", EXACT)
def test_gradients_of_a_projection(projection, backward):
    target, radius, expected = projection
    found = sphere(backward=backward)(START, target, radius)
    gradients = torch.autograd.grad((found * WEIGHTS).sum(), (target, radius))
    for got, want in zip(gradients, torch.autograd.grad((expected * WEIGHTS).sum(), (target, radius)), strict=True):
        torch.testing.assert_close(got, want, atol=1e-6 if backward in ("implicit", "dlm") else 1e-4, rtol=0)


def test_few_iterations_of_a_linear_method_give_back_part_of_the_gradient():
    """With the Gauss-Newton Hessian the iterates approach by a constant factor, and so does the truncated gradient."""
    target = tensor([[1.1, 0.3]], requires_grad=True)
    radius = tensor([1.0])
    errors = []
    expected = target / target.norm()
    (want,) = torch.autograd.grad(expected[0, 0], target)
    for backward in ("truncated(1)", "truncated(3)", "truncated(6)", "implicit"):
        found = sphere(backward=backward, hessian="gauss_newton")(target.detach(), target, radius)
        (got,) = torch.autograd.grad(found[0, 0], target)
        errors.append(float((got - want).abs().max()))
    assert errors[0] > 3.0 * errors[1] > 3.0 * errors[2] > errors[3]
    assert errors[0] > 1e-3
    assert errors[3] < 1e-6


def test_gauss_newton_backward_is_biased_where_the_constraint_is_curved(projection):
    target, radius, expected = projection
    found = sphere(backward="gauss_newton")(START, target, radius)
    (got,) = torch.autograd.grad((found * WEIGHTS).sum(), (target,))
    (want,) = torch.autograd.grad((expected * WEIGHTS).sum(), (target,))
    assert (got - want).abs().max() > 1e-2


def rosenbrock(z, radius):
    return (1.0 - z[0]) ** 2 + 100.0 * (z[1] - z[0] ** 2) ** 2


def in_disc(z, radius):
    return ((z * z).sum() - radius)[None]


@pytest.mark.parametrize("backward", ["implicit", "unroll", "dlm"])
def test_an_inequality_active_and_not(backward):
    """The third disc holds Rosenbrock's minimum, whose gradient is zero; the others are checked by differences."""
    solver = SQP(rosenbrock, inequalities=in_disc, backward=backward)
    start, radius = tensor([[-1.0, 1.0]]).repeat(3, 1), tensor([1.0, 0.5, 3.0], requires_grad=True)
    found = solver(start, radius)
    torch.testing.assert_close(found[0], tensor([0.786415, 0.617698]), atol=1e-5, rtol=0)
    torch.testing.assert_close(found[2], tensor([1.0, 1.0]), atol=1e-6, rtol=0)
    (gradient,) = torch.autograd.grad(found.sum(), radius)
    with torch.no_grad():
        ahead, behind = solver(start, radius + 1e-5), solver(start, radius - 1e-5)
    torch.testing.assert_close(gradient, (ahead - behind).sum(1) / 2e-5, atol=1e-4, rtol=0)


def test_bounds_hold_and_are_differentiated_as_constants():
    solver = SQP(lambda z, t: ((z - t) ** 2).sum() + (z**4).sum(), lower=0.0, upper=[0.3, 1.0])
    target = tensor([[2.0, 0.5], [-1.0, 0.7]], requires_grad=True)
    result = solver.solve(torch.zeros(2, 2, dtype=torch.float64), target)
    assert result.point[0, 0] == pytest.approx(0.3)
    assert result.point[1, 0] == pytest.approx(0.0, abs=1e-12)
    (gradient,) = torch.autograd.grad(result.z.sum(), target)
    # 2(z − t) + 4z³ = 0 where no bound is active
    expected = torch.zeros(2, 2, dtype=torch.float64)
    expected[:, 1] = 2.0 / (2.0 + 12.0 * result.z.detach()[:, 1] ** 2)
    torch.testing.assert_close(gradient, expected, atol=1e-7, rtol=0)


def test_quadratic_fit_by_residuals():
    """y = a x² + b with ten points: every mode gives the derivative of the least-squares solution."""
    x = torch.linspace(0.0, 1.0, 10, dtype=torch.float64)
    y = x**2 + 0.5 + 0.01 * torch.randn(10, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def residuals(z, x, y):
        return y - z[0].exp() * x**2 - z[1]  # in log a, so that it is not linear

    def fitted(shift, **keywords):
        solver = SQP(residuals, in_axes=(None, None), **keywords)
        return solver(torch.zeros(1, 2, dtype=torch.float64), x + shift, y)[0, 0].exp()

    step = 1e-4
    difference = (fitted(step, hessian="gauss_newton") - fitted(-step, hessian="gauss_newton")) / (2.0 * step)
    for backward in EXACT:
        shift = tensor(0.0, requires_grad=True)
        (gradient,) = torch.autograd.grad(fitted(shift, hessian="gauss_newton", backward=backward), shift)
        assert gradient == pytest.approx(float(difference), abs=1e-3), backward
    shift = tensor(0.0, requires_grad=True)
    (biased,) = torch.autograd.grad(fitted(shift, backward="gauss_newton"), shift)
    assert biased == pytest.approx(float(difference), abs=0.1)


def test_an_infeasible_linearisation_is_relaxed():
    """At z = 0 the linearisation of 1 − z² ≤ 0 has no solution."""
    solver = SQP(lambda z, a: ((z - a) ** 2).sum(), inequalities=lambda z, a: 1.0 - z**2)
    result = solver.solve(torch.zeros(1, 1, dtype=torch.float64), tensor([0.4]))
    assert result.log[0].elastic == 1
    assert result.z.abs().item() == pytest.approx(1.0, abs=1e-7)


def test_an_infeasible_program_is_named():
    solver = SQP(lambda z, a: (z**2).sum(), inequalities=lambda z, a: torch.stack([z[0] ** 2 + a, -z[0]]))
    start, offset = torch.ones(2, 1, dtype=torch.float64), tensor([-1.0, 1.0])
    with pytest.raises(SolverError, match="item 1") as caught:
        solver(start, offset)
    assert caught.value.items == (1,)
    masked = SQP(
        lambda z, a: (z**2).sum(),
        inequalities=lambda z, a: torch.stack([z[0] ** 2 + a, -z[0]]),
        on_failure="mask",
    )
    offset = offset.requires_grad_()
    result = masked.solve(start, offset)
    assert result.ok.tolist() == [True, False]
    (gradient,) = torch.autograd.grad(result.z.sum(), offset)
    assert gradient[1] == 0.0
    failed = SQP(rosenbrock, max_iters=1, on_failure="nan")(tensor([[-1.0, 1.0]]), tensor([1.0]))
    assert failed.isnan().all()


def test_second_order_correction_avoids_the_maratos_effect():
    """Maratos' example: near the solution full steps raise both the cost and the violation."""
    angle = 0.3
    solver = SQP(
        lambda z, a: 2.0 * ((z * z).sum() - 1.0) - a * z[0], equalities=lambda z, a: ((z * z).sum() - 1.0)[None]
    )
    result = solver.solve(tensor([[math.cos(angle), math.sin(angle)]]), tensor([1.0]))
    torch.testing.assert_close(result.z, tensor([[1.0, 0.0]]), atol=1e-7, rtol=0)
    assert sum(record.corrected for record in result.log) > 0
    assert min(record.step for record in result.log) == 1.0
    assert result.iterations[0] <= 8


def test_warm_start_and_single_items(projection):
    target, radius, expected = projection
    solver = sphere()
    first = solver.solve(START, target, radius)
    again = solver.solve(first.z, target, radius, warm_start=first)
    assert again.iterations.max() == 0
    one = solver(START[0], target[0], radius[0])
    torch.testing.assert_close(one, expected[0], atol=1e-7, rtol=0)


def test_parameters_may_be_trees_and_shared():
    def objective(z, theta, scale):
        return scale * ((z - theta["a"] - theta["b"]) ** 2).sum() + (z**4).sum()

    theta = {"a": torch.rand(3, 2, dtype=torch.float64), "b": torch.rand(3, 2, dtype=torch.float64).requires_grad_()}
    scale = tensor(2.0, requires_grad=True)
    solver = SQP(objective, in_axes=(0, None))
    start = torch.zeros(3, 2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad(solver(start, theta, scale).sum(), scale)
    with torch.no_grad():
        difference = (solver(start, theta, scale + 1e-5) - solver(start, theta, scale - 1e-5)).sum() / 2e-5
    assert gradient == pytest.approx(float(difference), abs=1e-6)
    traced = SQP(objective, in_axes=(0, None), traced=True)
    torch.testing.assert_close(traced(start, theta, scale), solver(start, theta, scale))


def test_items_do_not_depend_on_each_other(projection):
    target, radius, _ = projection
    solver = sphere()
    together = solver(START, target, radius)
    alone = solver(START[2:3], target[2:3], radius[2:3])
    torch.testing.assert_close(together[2:3], alone, atol=1e-9, rtol=0)


def test_float32_comes_back_and_second_derivatives_are_refused(projection):
    target, radius, _ = projection
    small = target.detach().float().requires_grad_()
    found = sphere()(START.float(), small, radius.detach().float())
    assert found.dtype == torch.float32
    (gradient,) = torch.autograd.grad(found.sum(), small, create_graph=True)
    with pytest.raises(RuntimeError):
        torch.autograd.grad(gradient.sum(), small)


def test_wrong_calls_are_named(projection):
    target, radius, _ = projection
    with pytest.raises(OptionError, match="backward"):
        sphere(backward="truncated(0)")
    with pytest.raises(OptionError, match="hessian"):
        sphere(hessian="bfgs")
    with pytest.raises(OptionError, match="on_failure is raise, nan or mask; got 'ignore'"):
        sphere(on_failure="ignore")
    with pytest.raises(InputError, match="framework is 'torch' or 'jax'; got 'mlx'"):
        sphere(framework="mlx")
    with pytest.raises(ShapeError, match="in_axes has 1 entries for 2 parameters: 0 batched, None shared"):
        sphere(in_axes=(0,))(START, target, radius)
    with pytest.raises(ShapeError, match="in_axes"):
        sphere()(START, target[:4], radius)
    with pytest.raises(ShapeError, match=r"start has shape \(1, .*expected \(batch, n\) or \(n,\)"):
        sphere()(START[None], target, radius)
    with pytest.raises(InputError, match="parameters are floating-point tensors, or trees of them; got Tensor"):
        sphere()(START, target.int(), radius)
    weight = tensor(2.0, requires_grad=True)
    with pytest.raises(InputError, match="closes over"):
        SQP(lambda z, t: weight * ((z - t) ** 2).sum())(START, target)


def test_a_derivative_that_is_not_unique_is_doubted():
    """z₁ + z₂ alone is determined: the derivative is the least-squares one, and a warning says so."""
    solver = SQP(lambda z, t: (z.sum() - t) ** 2)
    target = tensor([1.0], requires_grad=True)
    found = solver(torch.zeros(1, 2, dtype=torch.float64), target)
    with pytest.warns(DerivativeWarning, match="item"):
        torch.autograd.grad(found[0, 0], target)


# The gradient test: https://github.com/locuslab/mpc.pytorch (env_dx/pendulum.py) with control weight 0.05.
REFERENCE = ((-0.0455, 0.1624, 0.7799), (-0.3100, -1.0103, 1.0790))


def pendulum(x, u, theta):
    angle = torch.atan2(x[1], x[0])
    speed = x[2] + 0.05 * (1.5 * theta[0] / theta[2] * angle.sin() + 3.0 * u[0] / (theta[1] * theta[2] ** 2))
    angle = angle + 0.05 * speed
    return torch.stack([angle.cos(), angle.sin(), speed])


def pendulum_cost(x, u, theta):
    return 0.5 * (x[0] ** 2 + x[1] ** 2 + 0.1 * x[2] ** 2) - x[0] + 0.025 * u[0] ** 2


def planner(**keywords):
    sizes = {"horizon": 8, "states": 3, "controls": 1, "u_min": -2.0, "u_max": 2.0, "in_axes": (0,)}
    return MPC(pendulum, pendulum_cost, **{**sizes, **keywords})


STATES = tensor([[math.cos(1.0), math.sin(1.0), 0.5], [math.cos(0.4), math.sin(0.4), 0.2]])


@pytest.mark.parametrize("backward", MODES)
def test_gradients_of_a_plan(backward):
    theta = tensor([[10.0, 1.0, 1.0]]).repeat(2, 1).requires_grad_()
    plan = planner(backward=backward)(STATES, theta)
    weights = torch.linspace(1.0, 0.2, 8, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((plan.controls[..., 0] * weights).sum(), theta)
    error = (gradient - tensor(REFERENCE)).abs().max()
    if backward == "gauss_newton":
        assert error == pytest.approx(0.0626, abs=1e-3)
    else:
        assert error < 1e-3
    torch.testing.assert_close(
        plan.controls[:, 3:, 0].detach(),
        tensor([[-2.0, -2.0, -2.0, -1.16, 0.0], [-1.545, -1.107, -0.725, -0.366, 0.0]]),
        atol=1e-3,
        rtol=0,
    )


def test_a_plan_equals_the_same_program_without_structure():
    """The stage-wise model against dense derivatives of the whole program, bounds and slew limits included."""
    theta, previous = tensor([[10.0, 1.0, 1.0]]).repeat(2, 1).requires_grad_(), tensor([[0.5], [-0.5]])
    structured = planner(slew=0.7, hessian="exact")(STATES, theta, previous=previous)

    def split(z):
        return z[:32].reshape(8, 4)[:, :3], z[32:], z[:32].reshape(8, 4)[:, 3:]

    def cost(z, x0, previous, theta):
        states, _, controls = split(z)
        return sum(pendulum_cost(states[t], controls[t], theta) for t in range(8))

    def defects(z, x0, previous, theta):
        states, last, controls = split(z)
        after = torch.cat([states[1:], last[None]])
        moved = torch.stack([pendulum(states[t], controls[t], theta) for t in range(8)])
        return torch.cat([states[0] - x0, (after - moved).reshape(-1)])

    def slew(z, x0, previous, theta):
        change = torch.diff(torch.cat([previous, split(z)[2][:, 0]]))
        return torch.cat([change - 0.7, -change - 0.7])

    bounds = np.tile([np.inf, np.inf, np.inf, 2.0], 9)[:35]
    dense = SQP(cost, equalities=defects, inequalities=slew, lower=-bounds, upper=bounds)
    start = torch.tensor(structured.result.point) + 0.05
    z = dense(start, STATES, previous, theta)
    controls = z[:, :32].reshape(2, 8, 4)[..., 3]
    torch.testing.assert_close(controls, structured.controls[..., 0], atol=1e-6, rtol=0)
    weights = torch.linspace(1.0, 0.2, 8, dtype=torch.float64)
    (a,) = torch.autograd.grad((controls * weights).sum(), theta)
    (b,) = torch.autograd.grad((structured.controls[..., 0] * weights).sum(), theta)
    torch.testing.assert_close(a, b, atol=1e-6, rtol=0)


def linear(x, u, theta):
    return torch.stack([x[0] + 0.1 * x[1], x[1] + 0.1 * theta * u[0]])


def test_state_bounds_and_a_receding_horizon():
    mpc = MPC(
        linear,
        lambda x, u, theta: x[0] ** 2 + 0.01 * u[0] ** 2,
        lambda x, theta: 10.0 * (x * x).sum(),
        horizon=15,
        states=2,
        controls=1,
        u_min=-3.0,
        u_max=3.0,
        x_min=[-np.inf, -0.8],
    )
    theta = tensor(1.0)
    loop = receding_horizon(
        mpc, lambda x, u: torch.func.vmap(linear, (0, 0, None))(x, u, theta), tensor([[1.0, 0.0]]), theta, steps=40
    )
    states, controls, plans = zip(*loop, strict=True)
    visited = torch.cat(states)
    assert visited[:, 1].min() > -0.8 - 1e-7
    assert visited[:, 1].min() < -0.79
    assert visited[-1].abs().max() < 1e-2
    assert torch.cat(controls).abs().max() <= 3.0
    assert all(plan.result.ok.all() for plan in plans)
    assert plans[5].result.iterations.max() <= plans[0].result.iterations.max() + 1


def test_mpc_wrong_calls_are_named():
    theta = tensor([[10.0, 1.0, 1.0]])
    with pytest.raises(InputError, match="the slew is limited: pass previous, the controls applied before"):
        planner(slew=1.0)(STATES[:1], theta)
    with pytest.raises(ShapeError, match=r"x0 has shape \(3,\), expected \(batch, 3\)"):
        planner()(STATES[0], theta)
    with pytest.raises(ShapeError, match=r"controls has shape \(1, 7, 1\), expected \(1, "):
        planner()(STATES[:1], theta, controls=torch.zeros(1, 7, 1))


def test_in_jax(projection):
    jax = pytest.importorskip("jax")
    target, radius, expected = (part.detach().numpy() for part in projection)
    reference = torch.autograd.grad((projection[2] * WEIGHTS).sum(), projection[:2])
    for backward in EXACT:
        solver = SQP(distance, equalities=on_sphere, framework="jax", backward=backward)

        def loss(target, radius, solver=solver):
            return (WEIGHTS.numpy() * solver(START.numpy(), target, radius)).sum()

        gradients = jax.grad(loss, argnums=(0, 1))(jax.numpy.asarray(target), jax.numpy.asarray(radius))
        assert gradients[0].dtype == np.float32  # x64 is not switched on
        for got, want in zip(gradients, reference, strict=True):
            np.testing.assert_allclose(got, want, atol=1e-4)
    assert not jax.config.jax_enable_x64
    with pytest.raises(InputError, match="parameters are floating-point arrays, or trees of them; got"):
        solver(START.numpy(), jax.numpy.asarray([1, 2, 3]), radius)
    with pytest.raises(InputError, match="eagerly"):
        jax.jit(lambda t: solver(START.numpy(), t, radius))(jax.numpy.asarray(target))
    np.testing.assert_allclose(solver(START.numpy(), target, radius), expected, atol=1e-6)


def test_plans_in_jax():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy

    def dynamics(x, u, theta):
        angle = jnp.arctan2(x[1], x[0])
        speed = x[2] + 0.05 * (1.5 * theta[0] / theta[2] * jnp.sin(angle) + 3.0 * u[0] / (theta[1] * theta[2] ** 2))
        angle = angle + 0.05 * speed
        return jnp.stack([jnp.cos(angle), jnp.sin(angle), speed])

    mpc = MPC(
        dynamics, pendulum_cost, horizon=8, states=3, controls=1, u_min=-2.0, u_max=2.0, in_axes=(0,), framework="jax"
    )
    states = jnp.asarray(STATES.numpy())
    weights = jnp.linspace(1.0, 0.2, 8)
    loss = lambda theta: (mpc(states, theta).controls[..., 0] * weights).sum()  # noqa: E731
    gradient = jax.grad(loss)(jnp.tile(jnp.array([10.0, 1.0, 1.0]), (2, 1)))
    np.testing.assert_allclose(gradient, REFERENCE, atol=1e-3)


def test_an_inaccurate_end_warns():
    """At a kinked optimum of f = z⁴ the residual falls slowly; three iterations are near, not there."""
    solver = SQP(lambda z, a: (z**4).sum(), max_iters=12, eps=1e-12)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", CvxlayersWarning)
        result = solver.solve(tensor([[1.0]]), tensor([1.0]))
    assert result.status[0] == Status.INACCURATE
    assert any("inaccurate" in str(entry.message) for entry in caught)


def test_large_systems_are_differentiated_sparsely(monkeypatch):
    """The same gradient from the sparse factorisation as from the dense one."""
    gradients = []
    for largest in (10**6, 0):
        monkeypatch.setattr("cvxlayers.sqp.kkt._DENSE", largest)
        theta = tensor([[10.0, 1.0, 1.0]]).repeat(2, 1).requires_grad_()
        plan = planner()(STATES, theta)
        gradients.append(torch.autograd.grad(plan.controls.square().sum(), theta)[0])
    torch.testing.assert_close(*gradients, atol=1e-9, rtol=0)
