"""Convex cones: projections, their derivatives in spectral form, and products of cones."""

from cvxlayers.cones.basis import BlockBasis as BlockBasis
from cvxlayers.cones.basis import IdentityBasis as IdentityBasis
from cvxlayers.cones.basis import ProductBasis as ProductBasis
from cvxlayers.cones.basis import places as places
from cvxlayers.cones.basis import together as together
from cvxlayers.cones.cone import Basis as Basis
from cvxlayers.cones.cone import Cone as Cone
from cvxlayers.cones.cone import Derivative as Derivative
from cvxlayers.cones.cone import Triplets as Triplets
from cvxlayers.cones.cone import derivative_dual as derivative_dual
from cvxlayers.cones.cone import project_dual as project_dual
from cvxlayers.cones.cone import second_derivative_dual as second_derivative_dual
from cvxlayers.cones.exponential import Exponential as Exponential
from cvxlayers.cones.nonnegative import NonNegative as NonNegative
from cvxlayers.cones.power import Power as Power
from cvxlayers.cones.product import Product as Product
from cvxlayers.cones.second_order import SecondOrder as SecondOrder
from cvxlayers.cones.semidefinite import Semidefinite as Semidefinite
from cvxlayers.cones.smoothing import Smoothed as Smoothed
from cvxlayers.cones.zero import Zero as Zero
