"""The shapes in the annotations of the mathematical rooms: they are there, and they are true.

They cost nothing in normal use. Here jaxtyping's import hook has beartype check every argument
and every result while tests of those rooms run in a process of their own.
"""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

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

# What is refused with a UserError has no shape to be checked: those tests are left out.
RUN = {
    "the curves, the views and the times": [
        "tests/test_processes.py",
        "tests/test_predictions.py",
    ],
}


def checked(code, **options):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests")])}
    return subprocess.run(
        [sys.executable, "-c", CHECKED + code],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        **options,
    )


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
