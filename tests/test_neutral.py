"""What the framework-neutral layer adds to the core: jacobians."""

from __future__ import annotations

import numpy as np
import pytest

from cvxlayers import CvxpyLayer
from tests.problems import CASES


@pytest.mark.parametrize("batch", [(), (2, 3)], ids=str)
def test_jacobian_collects_the_tangents_of_every_entry(batch):
    problem, parameters, variables = CASES["many_outputs"].build()
    layer = CvxpyLayer(problem, parameters, variables)
    values = CASES["many_outputs"].sample(np.random.default_rng(0), batch)
    shared = [np.asarray(value[(0,) * len(batch)]) if slot else value for slot, value in enumerate(values)]
    jacobians, info = layer.jacobian(shared)
    assert info.residual.shape == batch
    for slot, parameter in enumerate(parameters):
        for entry in np.ndindex(*parameter.shape):
            tangents = [None] * len(values)
            tangents[slot] = np.zeros(shared[slot].shape)
            tangents[slot][..., *entry] = 1.0
            for index, tangent in enumerate(layer.jvp(shared, tangents)[0]):
                assert jacobians[index][slot].shape == batch + variables[index].shape + parameter.shape
                np.testing.assert_allclose(jacobians[index][slot][..., *entry], tangent, atol=1e-12)
