"""The shapes in the annotations of the mathematical rooms: they are there, and they are true.

They cost nothing in normal use. Here jaxtyping's import hook has beartype check every argument
and every result while tests of those rooms run in a process of their own.
"""

import ast
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_type_hints

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from beartype.door import is_bearable
from jaxtyping import jaxtyped

from score_jax.densities import two_modes
from score_jax.densities.linear import posterior_given
from score_jax.errors import UserError
from score_jax.losses.decoders import gaussian
from score_jax.losses.variational import bound
from score_jax.metrics.frechet import moments
from score_jax.odes import solve
from score_jax.predictions import exact
from score_jax.processes import VP, add_noise, linear_betas
from score_jax.samplers.exponential import curves
from score_jax.samplers.langevin import langevin_step

ROOT = Path(__file__).parent.parent
ROOMS = ("densities", "processes", "predictions", "times", "variances", "probability_flow")
ROOMS += ("parameterization", "losses", "samplers", "likelihood", "guidance", "inverse")
ROOMS += ("editing", "metrics", "odes")
FILES = sorted(
    file
    for room in ROOMS
    for file in [ROOT / "score_jax" / f"{room}.py", *(ROOT / "score_jax" / room).glob("*.py")]
    if file.exists()
)

CHECKED = f"""
import sys
from jaxtyping import install_import_hook

rooms = ["score_jax." + room for room in {ROOMS!r}]
tower = "beartype.BeartypeConf(is_pep484_tower=True)"  # an int is a float, as for mypy
install_import_hook(rooms, f"beartype.beartype(conf={{tower}})")
"""

# {test file: which of its tests}: quick ones that call the most. Not those of what is refused:
# a wrong shape gets a TypeCheckError before the function can say its own UserError.
RUN = {
    "densities": "conditional_is_the_joint and 0",
    "linear_posterior": "coordinate_without_noise or precisions",
    "processes": "(compose or carry) and (subvp or flow) or largest_distance",
    "predictions": "any_view and (edm or flow) or energys and subvp",
    "times": "(falls_from and 7 or process_has) and (edm or ncsn)",
    "variances": "true_reverse_step and flow-0.4",
    "odes": "below_the_tolerance",
    "losses": "minimizes and level",
    "score_matching": "half_the_squared_error",
    "variational": "prior_term or 0.0-1.0-32 or gaussian_decoder",
    "likelihood": "eight_bits",
    "guidance": "one_pair and subvp",
    "samplers": "own_key_alone and (heun or deis)",
    "ode_samplers": "straight_step or phi_functions or integrate_every",
    "stochastic_samplers": "malas_first_step",
    "adaptive": "calls_really_made",
    "editing": "great_circle or there_and_back and flow",
    "observation": "transposed_matrix and (blur or gray or mask) or symmetric_system",
    "inverse_gaussian": "pigdm and as_often and ddim",
    "replacement": "explained_already",
    "twisted": "resampling or one_particle and ancestral",
    "metrics_frechet": "transported or symmetric",
    "metrics_kernel": "closed_form",
    "metrics_neighbors": "loops_over_all_pairs and copies",
}


def checked(code, **environment):
    """A Python process that checks the shapes, and runs this."""
    path = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    return subprocess.run(
        [sys.executable, "-c", CHECKED + code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path} | environment,
        capture_output=True,
        text=True,
    )


def test_the_annotations_are_true_of_what_the_tests_of_these_rooms_call():
    files = [f"tests/test_{name}.py" for name in RUN]
    chosen = " or ".join(f"test_{name}.py and ({words})" for name, words in RUN.items())
    words = [*files, "-k", chosen, "-rp", "--tb=short", "-p", "no:cacheprovider"]
    run = f"import pytest; sys.exit(pytest.main({words!r}))"
    done = checked(run, JAX_DISABLE_MOST_OPTIMIZATIONS="1", JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stdout[-10_000:] + done.stderr[-2_000:]
    silent = [file for file in files if not re.search(rf"PASSED {file}::", done.stdout)]
    assert not silent, f"no test of {silent} was run"


WRONG = """
import jax, jax.numpy as jnp, numpy as np
from jaxtyping import TypeCheckError
from score_jax.densities import two_modes
from score_jax.metrics.kernel import squared_mmd
from score_jax.predictions import read
from score_jax.processes import VP, add_noise
from score_jax.samplers.langevin import langevin_step

x, key = jnp.zeros(2), jax.random.key(0)
for wrong in (
    lambda: add_noise(VP(), x, jnp.zeros(3), 0.5),
    lambda: add_noise(VP(), x, x, jnp.zeros(2)),
    lambda: two_modes().score(jnp.zeros((2, 1))),
    lambda: read("eps", jnp.zeros(()), VP(), x, 0.5),
    lambda: langevin_step(key, jnp.zeros(1), x, 0.1),
    lambda: langevin_step(x, x, x, 0.1),
    lambda: squared_mmd(np.eye(2), np.eye(3), np.ones((3, 2))),
):
    try:
        wrong()
    except TypeCheckError:
        print("refused")
"""


def test_what_checks_them_is_on_and_refuses_wrong_shapes():
    done = checked(WRONG, JAX_PLATFORMS="cpu")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == 7 * ["refused"]


def results():
    """One of each tuple of arrays: the hook checks functions, not fields."""
    process, density, x = VP(), two_modes(), jnp.array([0.5, -1.0])
    predict = exact(process, density)
    levels = linear_betas(beta_min=0.1, beta_max=0.5, levels=3)
    key = jax.random.key(0)
    return [
        predict(x, 0.5),
        curves(process, np.array([0.2, 0.4, 0.6])),
        moments(np.array([[0.0, 1.0], [2.0, 3.0], [1.0, 0.0]])),
        posterior_given(density, np.array([[1.0, 0.0]]), np.array([0.3]), 0.1),
        solve(lambda y, t: -y, x, 0.0, 1.0, rtol=1e-3, atol=1e-3),
        bound(key, levels, exact(levels, density), x, variance="large", decoder=gaussian),
    ]


def test_the_fields_of_what_is_returned_have_their_shapes():
    for found in results():
        hints = get_type_hints(type(found), include_extras=True)
        with jaxtyped("context"):  # in which a name is one length
            wrong = [k for k, v in found._asdict().items() if not is_bearable(v, hints[k])]
        assert not wrong, f"{type(found).__name__}: {wrong}"


def test_without_it_nothing_is_checked():
    """Broadcasting an ε of another shape is what the function itself refuses, by its UserError."""
    with pytest.raises(UserError, match="shape of x_0"):
        add_noise(VP(), jnp.zeros(2), jnp.zeros(3), 0.5)
    assert langevin_step(jax.random.key(0), jnp.zeros(1), jnp.zeros(2), 0.1).shape == (2,)


def test_every_room_is_there():
    assert {
        file.relative_to(ROOT / "score_jax").parts[0].removesuffix(".py") for file in FILES
    } == {*ROOMS}


def name_of(file):
    return str(file.relative_to(ROOT))


ARRAYS = {"Array", "Given", "ndarray"}
SHAPED = {"Float", "Real", "Int", "Bool", "Shaped", "Key"}


def named(node):
    return node.id if isinstance(node, ast.Name) else getattr(node, "attr", None)


def shapeless(node):
    """The arrays in an annotation, or in the definition of a word for one, without a shape."""
    if named(node) in ARRAYS:
        return [node]
    if isinstance(node, ast.Subscript) and named(node.value) in SHAPED:
        return []
    return [found for child in ast.iter_child_nodes(node) for found in shapeless(child)]


def public(body):
    return [n for n in body if not getattr(n, "name", "").startswith("_") or n.name == "__init__"]


def annotations(body):
    """(line, annotation or None) of all public functions, methods, fields and words for types."""
    for node in public(body):
        if isinstance(node, ast.ClassDef):
            yield from annotations(node.body)
        elif isinstance(node, ast.AnnAssign):
            yield node.lineno, node.annotation
        elif isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript | ast.BinOp):
            yield node.lineno, node.value
        elif isinstance(node, ast.FunctionDef):
            known = node.args
            given = [*known.posonlyargs, *known.args, *known.kwonlyargs, known.vararg, known.kwarg]
            given = [a for a in given if a is not None and a.arg not in ("self", "cls")]
            yield from ((argument.lineno, argument.annotation) for argument in given)
            if node.name != "__init__":
                yield node.lineno, node.returns


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_every_array_that_is_taken_or_returned_has_a_shape(file):
    found = list(annotations(ast.parse(file.read_text()).body))
    assert not [line for line, annotation in found if annotation is None], "no annotation"
    assert not [line for line, annotation in found if shapeless(annotation)], "no shape"
