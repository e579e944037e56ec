"""Derivatives of the conic residual map: jvp, vjp, and the polish on the same Jacobian."""

from cvxlayers.derivative.central_path import central_point as central_point
from cvxlayers.derivative.implicit import TRUSTED as TRUSTED
from cvxlayers.derivative.implicit import Data as Data
from cvxlayers.derivative.implicit import DerivativeInfo as DerivativeInfo
from cvxlayers.derivative.implicit import Linearisation as Linearisation
from cvxlayers.derivative.implicit import jvp as jvp
from cvxlayers.derivative.implicit import linearise as linearise
from cvxlayers.derivative.implicit import vjp as vjp
from cvxlayers.derivative.linear_solve import Method as Method
from cvxlayers.derivative.linear_solve import choose_method as choose_method
from cvxlayers.derivative.linear_solve import factorise as factorise
from cvxlayers.derivative.polish import polish as polish
from cvxlayers.derivative.polish import start as start
from cvxlayers.derivative.residual import Point as Point
from cvxlayers.derivative.residual import evaluate as evaluate
from cvxlayers.derivative.residual import residuals as residuals
from cvxlayers.derivative.second import Motion as Motion
from cvxlayers.derivative.second import move as move
from cvxlayers.derivative.second import second_jvp as second_jvp
from cvxlayers.derivative.second import vjp_tangent as vjp_tangent
from cvxlayers.derivative.second import worst_of as worst_of
from cvxlayers.derivative.system import Factorisation as Factorisation
from cvxlayers.derivative.system import Factorise as Factorise
from cvxlayers.derivative.system import Lifted as Lifted
from cvxlayers.derivative.system import System as System
from cvxlayers.derivative.system import without_rows as without_rows
