"""The torch door: what its users do with a module, beside its values."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor

import cvxpy as cp
import numpy as np
import pytest

torch = pytest.importorskip("torch")
CvxpyLayer = pytest.importorskip("cvxlayers.torch").CvxpyLayer


def parts(n: int = 4, inequalities: int = 3):
    """A strictly convex QP with one equality, in the parameters L, q, a, h."""
    x = cp.Variable(n, name="x")
    L, q = cp.Parameter((n, n), name="L"), cp.Parameter(n, name="q")
    a, h = cp.Parameter(n, name="a"), cp.Parameter(inequalities, name="h")
    G = np.random.default_rng(7).normal(size=(inequalities, n))
    constraints = [a @ x == 1, G @ x <= h]
    problem = cp.Problem(cp.Minimize(0.5 * cp.sum_squares(L @ x) + 0.05 * cp.sum_squares(x) + q @ x), constraints)
    return problem, [L, q, a, h], [x]


def tensors(*batch: int, n: int = 4, inequalities: int = 3, grad: bool = True, dtype=torch.float64, seed: int = 0):
    """Values of L, q, a, h for which the QP is feasible."""
    rng = np.random.default_rng(seed)
    values = [rng.normal(size=(*batch, *shape)) for shape in ((n, n), (n,), (n,))]
    G = np.random.default_rng(7).normal(size=(inequalities, n))
    feasible = values[2] / np.sum(values[2] ** 2, axis=-1, keepdims=True)
    values.append(feasible @ G.T + rng.uniform(0.1, 1, size=(*batch, inequalities)))
    return [torch.tensor(value, dtype=dtype, requires_grad=grad) for value in values]


@pytest.fixture(scope="module")
def layer():
    return CvxpyLayer(*parts())


def gradients(outputs, inputs):
    return torch.autograd.grad(sum((output**2).sum() for output in outputs), inputs)


@pytest.mark.parametrize("arguments", ["positional", "named"])
def test_takes_the_place_of_cvxpylayers(arguments):
    problem, parameters, variables = parts()
    if arguments == "positional":
        layer = CvxpyLayer(problem, parameters, variables)
    else:
        layer = CvxpyLayer(problem, parameters=parameters, variables=variables, gp=False, solver=cp.CLARABEL)
    values = tensors(5)
    outputs = layer(*values, solver_args={"eps": 1e-9})
    assert isinstance(outputs, tuple)
    (x,) = outputs
    assert x.shape == (5, 4)
    for item in range(5):
        for parameter, value in zip(parameters, values, strict=True):
            parameter.value = value[item].detach().numpy()
        problem.solve(solver=cp.CLARABEL, tol_gap_abs=1e-12, tol_gap_rel=1e-12, tol_feas=1e-12)
        np.testing.assert_allclose(x[item].detach(), variables[0].value, rtol=0, atol=1e-7)


def test_gradcheck(layer):
    assert torch.autograd.gradcheck(lambda *values: layer(*values), tensors(2), eps=1e-6, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("batch", [(), (1,), (5,), (2, 3), (2, 1, 3), (0,), (2, 0)])
def test_batch_axes(layer, batch):
    values = tensors(*batch)
    (x,) = layer(*values)
    assert x.shape == (*batch, 4)
    for gradient, value in zip(gradients((x,), values), values, strict=True):
        assert gradient.shape == value.shape
        assert gradient.isfinite().all()
    for index in np.ndindex(*batch):
        (alone,) = layer(*(value[index] for value in values))
        torch.testing.assert_close(alone, x[index], rtol=0, atol=1e-12)


def test_unbatched_parameters_are_shared_and_their_gradients_summed(layer):
    L, q, a, h = tensors(6)
    a, h = a[0].detach().requires_grad_(), (h.max(dim=0).values + 5.0).detach().requires_grad_()
    (x,) = layer(L, q, a, h)
    wide = [L, q, a.expand(6, 4), h.expand(6, 3)]
    (same,) = layer(*wide)
    torch.testing.assert_close(x, same, rtol=0, atol=1e-12)
    for mixed, full in zip(gradients((x,), (L, q, a, h)), gradients((same,), (L, q, a, h)), strict=True):
        torch.testing.assert_close(mixed, full, rtol=1e-10, atol=1e-12)


def test_axes_of_length_one_broadcast(layer):
    L, q, a, h = tensors(3)
    with torch.no_grad():
        h = h + 50.0
    one = [L[:, None], q[:, None], a[:, None], h[None]]
    (x,) = layer(*one)
    assert x.shape == (3, 3, 4)
    for i, j in np.ndindex(3, 3):
        (alone,) = layer(L[i], q[i], a[i], h[j])
        torch.testing.assert_close(x[i, j], alone, rtol=0, atol=1e-12)
    leaves = [value.detach().requires_grad_() for value in one]
    for gradient, leaf in zip(gradients(layer(*leaves), leaves), leaves, strict=True):
        assert gradient.shape == leaf.shape


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64], ids=str)
def test_dtype_is_kept(layer, dtype):
    values = tensors(3, dtype=dtype)
    (x,) = layer(*values)
    assert x.dtype == dtype
    (exact,) = layer(*(value.double() for value in values))
    torch.testing.assert_close(x, exact.to(dtype), rtol=0, atol=0)
    (x * x).sum().backward()
    assert all(value.grad.dtype == dtype for value in values)


def test_mixed_dtypes_promote_and_every_gradient_has_its_own(layer):
    values = tensors(3)
    values[1] = values[1].float().detach().requires_grad_()
    (x,) = layer(*values)
    assert x.dtype == torch.float64
    x.sum().backward()
    assert [value.grad.dtype for value in values] == [torch.float64, torch.float32, torch.float64, torch.float64]


def test_several_calls_before_one_backward(layer):
    first, second = tensors(2, seed=1), tensors(2, seed=2)
    (together_first,), (together_second,) = layer(*first), layer(*second)
    loss = (together_first**2).sum() + (together_second**2).sum()
    together = torch.autograd.grad(loss, [*first, *second])
    apart = [*gradients(layer(*first), first), *gradients(layer(*second), second)]
    for got, want in zip(together, apart, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_rollout_through_one_layer(layer):
    """The output of each call enters the next: the gradient of twelve steps against a difference."""
    L, q, a, h = tensors(grad=False)
    h = h + 20.0

    def roll(q0):
        state = q0
        for _ in range(12):
            (state,) = layer(L, 0.5 * state + q, a, h)
        return (state**2).sum()

    start = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(roll(start), start)
    direction, step = torch.ones(4, dtype=torch.float64), 1e-3
    values = [roll(start.detach() + k * step * direction).item() for k in (-2, -1, 1, 2)]
    difference = (values[0] - 8 * values[1] + 8 * values[2] - values[3]) / (12 * step)
    assert (gradient @ direction).item() == pytest.approx(difference, rel=1e-6, abs=1e-10)


def test_retain_graph_gives_the_same_twice(layer):
    values = tensors(3)
    loss = (layer(*values)[0] ** 2).sum()
    once = torch.autograd.grad(loss, values, retain_graph=True)
    twice = torch.autograd.grad(loss, values)
    assert all(torch.equal(a, b) for a, b in zip(once, twice, strict=True))


def test_writing_to_a_parameter_after_the_call_raises(layer):
    """As for every function of torch whose derivative needs its input."""
    values = tensors(3)
    outputs = layer(*values)
    with torch.no_grad():
        values[0].zero_()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        gradients(outputs, values)


def test_no_grad_and_constants_make_no_graph(layer):
    values = tensors(3)
    with torch.no_grad():
        (quiet,) = layer(*values)
    assert not quiet.requires_grad
    (constant,) = layer(*(value.detach() for value in values))
    assert not constant.requires_grad
    (some,) = layer(values[0].detach(), values[1], values[2].detach(), values[3].detach())
    assert gradients((some,), [values[1]])[0].shape == (3, 4)


def test_outputs_that_are_not_used_have_no_cotangent():
    problem, parameters, (x,) = parts()
    duals = [constraint.dual_variables[0] for constraint in problem.constraints]
    layer = CvxpyLayer(problem, parameters, [x, *duals])
    values = tensors(3)
    outputs = layer(*values)
    only = torch.autograd.grad(outputs[0].sum(), values, retain_graph=True)
    cotangents = [torch.ones_like(outputs[0]), *(torch.zeros_like(dual) for dual in outputs[1:])]
    for got, want in zip(only, torch.autograd.grad(outputs, values, cotangents), strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=1e-14)


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_copies_are_layers_of_their_own(layer, clone):
    values = tensors(3)
    twin = clone(layer)
    outputs, mine = twin(*values), layer(*values)
    assert torch.equal(outputs[0], mine[0])
    for a, b in zip(gradients(outputs, values), gradients(mine, values), strict=True):
        assert torch.equal(a, b)


def test_is_a_module_without_weights(layer, tmp_path):
    assert layer.state_dict() == {}
    assert list(layer.parameters()) == []
    model = torch.nn.Sequential()
    model.add_module("layer", layer)
    model.load_state_dict(model.state_dict())
    torch.save(layer, tmp_path / "layer.pt")
    again = torch.load(tmp_path / "layer.pt", weights_only=False)
    values = tensors(2, grad=False)
    assert torch.equal(again(*values)[0], layer(*values)[0])
    assert repr(layer) == "CvxpyLayer(L[4, 4], q[4], a[4], h[3] -> x[4], solver=DAQP)"
    assert not copy.deepcopy(layer).eval().training


@pytest.mark.parametrize("solver", [None, "DAQP", "PIQP", "CLARABEL", "SCS"])
def test_eight_threads_get_the_bits_of_one(solver):
    layer = CvxpyLayer(*parts(), solver=solver)
    jobs = [tensors(4, seed=seed) for seed in range(8)]
    want = [(layer(*job)[0].detach(), gradients(layer(*job), job)) for job in jobs]

    def work(job):
        outputs = layer(*job)
        return outputs[0].detach(), gradients(outputs, job)

    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            for (x, grads), (expected, expected_grads) in zip(pool.map(work, jobs), want, strict=True):
                assert torch.equal(x, expected)
                assert all(torch.equal(a, b) for a, b in zip(grads, expected_grads, strict=True))


def test_threads_inside_give_the_bits_of_one():
    values = tensors(64)
    outcomes = []
    for threads in (1, 2, 5):
        outputs = CvxpyLayer(*parts(), threads=threads)(*values)
        outcomes.append([outputs[0], *gradients(outputs, values)])
    for other in outcomes[1:]:
        for a, b in zip(outcomes[0], other, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=1e-13)


def test_tensors_that_are_views_or_strided(layer):
    values = tensors(3, grad=False)
    strided = [torch.stack([value, value], dim=-1)[..., 0] for value in values]
    assert not strided[0].is_contiguous()
    assert torch.equal(layer(*strided)[0], layer(*values)[0])


def test_training_moves_the_loss(layer):
    values = tensors(8, grad=False)
    q = torch.zeros(4, dtype=torch.float64, requires_grad=True)
    values[1] = torch.full((4,), 0.3, dtype=torch.float64).expand(8, 4)
    target = layer(*values)[0]
    optimiser = torch.optim.Adam([q], lr=0.05)
    losses = []
    for _ in range(60):
        optimiser.zero_grad()
        loss = ((layer(values[0], q, values[2], values[3])[0] - target) ** 2).mean()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 1e-2 * losses[0]


def test_values_may_change_between_the_passes(rng):
    x, c, b = cp.Variable(3), cp.Parameter(3), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.sum_squares(x) + c @ x), [x <= b]), [c, b], [x])
    values = [torch.tensor(rng.normal(size=(4, 3)), requires_grad=True) for _ in range(2)]
    (kept,) = layer(*values)
    (changed,) = layer(*values)
    expected = torch.autograd.grad(kept.sum(), values)
    with torch.no_grad():
        for value in values:
            value.numpy()[:] = 7.0  # past autograd, which would refuse it
    for gradient, want in zip(torch.autograd.grad(changed.sum(), values), expected, strict=True):
        torch.testing.assert_close(gradient, want, rtol=0, atol=0)


def test_outputs_may_be_written_to_before_the_backward_pass(rng):
    x, Q, c = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, Q) + c @ x), [x <= 1]), [Q, c], [x])
    values = [torch.eye(3, dtype=torch.float64).repeat(4, 1, 1), torch.tensor(rng.normal(size=(4, 3)))]
    for value in values:
        value.requires_grad_()
    (kept,) = layer(*values)
    expected = torch.autograd.grad(kept.sum(), values)
    (changed,) = layer(*values)
    total = changed.sum()
    changed.detach().numpy()[:] = 7.0
    for gradient, want in zip(torch.autograd.grad(total, values), expected, strict=True):
        torch.testing.assert_close(gradient, want, rtol=0, atol=0)


def test_gradients_are_arrays_of_their_own(rng):
    x, Q, c = cp.Variable(3), cp.Parameter((3, 3), PSD=True), cp.Parameter(3)
    layer = CvxpyLayer(cp.Problem(cp.Minimize(cp.quad_form(x, Q) + c @ x), [x <= 1]), [Q, c], [x])
    values = [torch.eye(3, dtype=torch.float64).repeat(4, 1, 1), torch.tensor(rng.normal(size=(4, 3)))]
    for value in values:
        value.requires_grad_()
    layer(*values)[0].sum().backward()
    assert [value.grad.is_contiguous() for value in values] == [True, True]
    assert values[0].grad.untyped_storage().data_ptr() != values[1].grad.untyped_storage().data_ptr()
