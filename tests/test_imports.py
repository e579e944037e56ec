"""The floors of the house, read from its imports: arrows point down, and every outside package has one room."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import cvxlayers
from cvxlayers import errors

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "cvxlayers"

# From the bottom up. A room (a module, or a package) imports from lower floors and from itself, never from a sibling.
FLOORS = (
    {"errors"},
    {"arrays", "batches", "blas", "cones", "differentiation", "domain", "memory", "parallel"},
    {"elimination", "grid", "patterns"},
    {"complement"},
    {"program"},
    {"idioms", "kkt", "linear_map", "parameter_map", "report", "residual"},
    {"affine_map", "variable_map"},
    {"compiled", "directions"},
    {"archive"},
    {"canonical", "derivative", "result", "ridge", "solvers"},
    {"reduction"},
    {"closed"},
    {"kernel"},
    {"solve"},
    {"affine", "lean"},
    {"forward", "lpgd"},
    {"affine_call", "envelope", "lean_call"},
    {"solution_maps"},
    {"conic_call"},
    {"layer"},
    {"build", "describe", "gradcheck", "second"},
    {"rules", "spy", "standard"},
    {"host"},
    {"artifact", "forms", "jax_primitives", "tensorflow_gradients", "torch_function"},
    {"base", "torch_operators"},
    {"jax", "neutral", "tensorflow", "testing", "torch"},
    {"cli", "sqp"},
    {"__main__"},
)
FLOOR = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}

# Where an outside package may be imported: one room, or one file.
HOMES = {
    "cvxpy": "canonical/",
    "clarabel": "solvers/clarabel.py",
    "daqp": "solvers/daqp.py",
    "ecos": "solvers/ecos.py",
    "moreau": "solvers/moreau.py",
    "piqp": "solvers/piqp.py",
    "scs": "solvers/scs.py",
    "matplotlib": "spy.py",
    "rich": "cli/screen.py",
    "qdldl": "derivative/sparse.py",
    "threadpoolctl": "blas.py",
    "torch": ("torch", "sqp/torch_autodiff.py"),
    "jax": ("jax", "sqp/jax_autodiff.py"),
    "tensorflow": "tensorflow",
}
# The doors, and what their frameworks call themselves.
DOORS = {"jax": "JAX", "tensorflow": "TensorFlow", "torch": "PyTorch"}
EVERYWHERE = {"numpy", "scipy", "jaxtyping", *sys.stdlib_module_names}
SOLVERS = {package for package, home in HOMES.items() if str(home).startswith("solvers/")}

FILES = sorted(PACKAGE.rglob("*.py"))
MODULES = [path for path in FILES if path != PACKAGE / "__init__.py"]
EACH_FILE = pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))


def imports(tree: ast.AST) -> Iterator[str]:
    """Dotted names of all that is imported anywhere below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room_of(path: Path) -> str:
    """The room that a file is, or is in."""
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


# The neutral layer takes a compiled problem to the other doors, which it imports when it is asked to.
EXPORTS = {("neutral", door) for door in DOORS}
# A file's header names the version of the library, which stands in its face.
FACE = "__version__"


@EACH_FILE
def test_arrows_point_down(path):
    room = room_of(path)
    assert room in FLOOR, f"{room} has no floor yet: name it in FLOORS"
    for name in imports(ast.parse(path.read_text())):
        package, *rest = name.split(".")
        if package == "cvxlayers" and rest[0] not in (room, FACE, "__version__") and (room, rest[0]) not in EXPORTS:
            assert FLOOR[rest[0]] < FLOOR[room], f"{room} imports {rest[0]}, which is not below it"


def test_rooms_are_free_of_circles():
    """Within a room too, files import one another in one direction only."""
    uses = {path: set(_neighbours(path)) for path in MODULES}
    done: set[Path] = set()
    while ready := {path for path, used in uses.items() if path not in done and used <= done}:
        done |= ready
    assert done == set(uses), f"circle among {sorted(str(path.relative_to(PACKAGE)) for path in set(uses) - done)}"


def _neighbours(path: Path) -> Iterator[Path]:
    for name in imports(ast.parse(path.read_text())):
        *folders, last = name.split(".")
        if folders and folders[0] == "cvxlayers":
            inside = Path(*folders)
            for candidate in (inside / f"{last}.py", inside.with_suffix(".py"), inside / "__init__.py"):
                if (ROOT / candidate) in MODULES and ROOT / candidate != path:
                    yield ROOT / candidate
                    break


@EACH_FILE
def test_outside_packages_stay_in_their_rooms(path):
    where = str(path.relative_to(PACKAGE))
    for name in imports(ast.parse(path.read_text())):
        package = name.split(".")[0]
        if package in HOMES:
            assert where.startswith(HOMES[package]), f"{package} may only be imported in {HOMES[package]}"
        else:
            assert package == "cvxlayers" or package in EVERYWHERE, f"{package} is not a dependency"


@pytest.mark.parametrize("path", sorted((PACKAGE / "solvers").glob("*.py")), ids=lambda path: path.name)
def test_solvers_are_imported_on_first_use(path):
    """Not at the top of a file: a solver that is not installed must not matter until it is asked for."""
    top = [node for node in ast.parse(path.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)]
    loaded = {name.split(".")[0] for node in top for name in imports(node)}
    assert not loaded & SOLVERS


@pytest.mark.parametrize("folder", ["examples", "benchmarks"])
def test_examples_and_benchmarks_use_the_public_face(folder):
    public = {"cvxlayers.CvxpyLayer", "cvxlayers.errors", *(f"cvxlayers.{door}.CvxpyLayer" for door in DOORS)}
    public |= {"cvxlayers.torch.solve_conic", "cvxlayers.torch.solve_qp"}
    public |= {"cvxlayers.sqp.MPC", "cvxlayers.sqp.SQP", "cvxlayers.sqp.receding_horizon"}
    public |= {f"cvxlayers.errors.{name}" for name in errors.__all__} | {
        f"cvxlayers.{name}" for name in cvxlayers.__all__
    }
    for path in (ROOT / folder).rglob("*.py"):
        used = {name for name in imports(ast.parse(path.read_text())) if name.split(".")[0] == "cvxlayers"}
        assert used <= public | {"cvxlayers"}, path


def in_fresh_interpreter(code: str) -> str:
    """What a new interpreter prints."""
    finished = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return finished.stdout.strip()


WATCHED = sorted({"cvxpy", "matplotlib", "torch", "jax", "tensorflow", *SOLVERS})
LOADED = f"import sys; print(*[name for name in {WATCHED} if name in sys.modules])"


def test_importing_the_package_imports_no_framework_and_no_cvxpy():
    assert in_fresh_interpreter(f"import cvxlayers; {LOADED}") == ""


def test_the_neutral_layer_imports_no_framework():
    assert in_fresh_interpreter(f"import cvxlayers; cvxlayers.CvxpyLayer; cvxlayers.Status; {LOADED}") == ""


def test_programs_by_their_data_need_no_cvxpy():
    code = "import cvxlayers, numpy as np; cvxlayers.solve_qp(np.eye(2), np.ones(2), lb=-0.5, solver='DAQP')"
    assert in_fresh_interpreter(f"{code}; {LOADED}") == "daqp"


@pytest.mark.parametrize("door", DOORS)
def test_a_door_imports_no_other_framework(door):
    pytest.importorskip(door)
    alone = in_fresh_interpreter(f"import {door}; {LOADED}").split()
    assert in_fresh_interpreter(f"import cvxlayers.{door}; {LOADED}").split() == alone


def test_importing_the_package_is_quick():
    """The best of five: the machine may be busy with something else."""
    clock = "from time import perf_counter as t; a = t(); import cvxlayers; print(t() - a)"
    assert min(float(in_fresh_interpreter(clock)) for _ in range(5)) < 0.3


@pytest.mark.parametrize("module", ["cvxlayers", "cvxlayers.errors", *(f"cvxlayers.{door}" for door in DOORS)])
def test_all_names_the_public_names(module):
    if module.removeprefix("cvxlayers.") in DOORS:
        pytest.importorskip(module.removeprefix("cvxlayers."))
    loaded = importlib.import_module(module)
    assert loaded.__file__ is not None
    bound = set(_bound(ast.parse(Path(loaded.__file__).read_text()), module))
    assert sorted(loaded.__all__) == sorted(bound)
    assert len(set(loaded.__all__)) == len(loaded.__all__)
    for name in loaded.__all__:
        assert getattr(loaded, name) is not None


def _bound(tree: ast.Module, module: str) -> Iterator[str]:
    """Public classes, functions of a door, what the package exports by `import name as name`, and its version."""
    reexported = module == "cvxlayers"
    kinds = ast.ClassDef if module == "cvxlayers.errors" else ast.ClassDef | ast.FunctionDef
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and reexported:
            yield from (alias.name for alias in node.names if alias.asname == alias.name)
    for node in tree.body:
        if isinstance(node, kinds) and not node.name.startswith("_"):
            yield node.name
        elif reexported and isinstance(node, ast.Assign):
            yield from (
                target.id for target in node.targets if isinstance(target, ast.Name) and target.id == "__version__"
            )


def test_unknown_name_is_refused():
    with pytest.raises(AttributeError, match="no attribute 'CvxpyLayers'"):
        cvxlayers.CvxpyLayers  # noqa: B018


@pytest.mark.parametrize(("door", "framework"), DOORS.items())
def test_a_door_without_its_framework_says_what_to_install(door, framework):
    code = (
        f"import sys; sys.modules['{door}'] = None\n"
        "from cvxlayers.errors import MissingDependencyError\n"
        f"try:\n    import cvxlayers.{door}\n"
        "except MissingDependencyError as error:\n    print(error)"
    )
    assert in_fresh_interpreter(code) == f"cvxlayers.{door} needs {framework}: pip install 'cvxlayers[{door}]'"


def test_the_package_is_marked_as_typed():
    assert (PACKAGE / "py.typed").exists()
