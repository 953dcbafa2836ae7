"""The shape of the code: who imports whom, where devices and packages live."""

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "score_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted(ROOT.glob("configs/*.py"))

LAYERS = (
    ("errors", "files", "types"),
    ("hosts", "keys", "limits", "odes", "power_ema", "signals", "surroundings", "threefry"),
    ("bars", "densities", "metrics", "processes", "options", "tensors"),
    ("plotting", "predictions", "times"),
    ("parameterization", "probability_flow", "variances"),
    ("losses", "samplers", "likelihood", "models", "data", "config", "guidance"),
    ("checks", "sections", "inverse", "editing"),
    ("given", "experiment", "classifying", "build", "parallel", "workdir"),
    ("accuracy", "held_out", "pictures", "pieces", "sampling", "trajectories"),
    ("training", "evaluation", "report"),
    ("guides", "samples", "hints", "commands", "interop", "main"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Besides what lies below it, and itself, a room may import these of its own layer.
NEIGHBORS = {
    "odes": {"limits"},
    "keys": {"threefry"},
    "experiment": {"given"},
    "classifying": {"experiment"},
    "build": {"given", "experiment", "classifying"},
    "workdir": {"parallel"},
    "accuracy": {"held_out"},
    "variances": {"predictions"},
    "trajectories": {"sampling"},
    "pictures": {"trajectories"},
    "samples": {"guides"},
    "hints": {"guides"},
    "commands": {"guides", "hints", "samples"},
    "main": {"commands"},
    "interop": {"main"},
}


def name_of(file):
    return str(file.relative_to(ROOT))


def imports(file):
    """The full names of all that a file imports, wherever in it the import stands."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(file)}: a relative import, line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def rooms_imported(file):
    """The rooms of score_jax among them."""
    return {name.split(".")[1] for name in imports(file) if name.startswith("score_jax.")}


def room_of(file):
    return file.relative_to(PACKAGE).parts[0].removesuffix(".py")


def test_every_room_has_a_layer():
    assert {room_of(file) for file in FILES} - {"__init__"} == set(LEVEL)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_a_module_imports_only_from_the_layers_below_its_own(file):
    room = room_of(file)
    if room == "__init__":
        assert not rooms_imported(file)
        return
    allowed = {room} | NEIGHBORS.get(room, set())
    wrong = {
        other
        for other in rooms_imported(file)
        if other not in allowed and LEVEL[other] >= LEVEL[room]
    }
    assert not wrong, f"{room} (layer {LEVEL[room]}) imports {wrong}"


def test_a_neighbor_that_nobody_needs_is_not_allowed():
    """Keeps the table of exceptions as short as it can be."""
    for room, neighbors in NEIGHBORS.items():
        used = set().union(*(rooms_imported(file) for file in FILES if room_of(file) == room))
        assert neighbors <= used, f"{room} no longer imports {neighbors - used}"


def test_the_launcher_knows_main_and_nothing_else():
    ours = [name for name in imports(ROOT / "launch.py") if name.startswith("score_jax")]
    assert ours == ["score_jax.main.leave", "score_jax.main.main"]


def test_a_config_is_data_and_imports_nothing_of_ours():
    for file in CONFIGS:
        assert not rooms_imported(file), file.name


def words(file):
    """Every identifier that a file's code uses: no comments, no strings."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr
        elif isinstance(node, ast.alias):
            yield node.name.split(".")[-1]


def test_devices_are_spoken_of_in_one_file():
    for word in ("pmap", "shard_map", "pmean", "psum", "all_gather"):
        speakers = {name_of(file) for file in FILES if word in words(file)}
        assert speakers <= {"score_jax/parallel.py"}, word
    assert "pmap" in words(PACKAGE / "parallel.py")


def importers(package):
    return {
        name_of(file)
        for file in [*FILES, *CONFIGS, ROOT / "launch.py"]
        if any(name.split(".")[0] == package for name in imports(file))
    }


@pytest.mark.parametrize("package", ["tensorflow", "keras", "diffusers"])
def test_no_other_framework_is_imported(package):
    assert not importers(package)


def test_torch_is_imported_to_read_its_files_and_for_nothing_else():
    assert importers("torch") == {"score_jax/tensors.py"}


def test_matplotlib_is_imported_in_one_file():
    assert importers("matplotlib") == {"score_jax/plotting/figures.py"}


def test_tensorflow_datasets_are_read_in_one_place():
    assert importers("tensorflow_datasets") <= {
        "score_jax/data/tfds.py",
        "score_jax/data/tfds_without_tf.py",
    }


HEAVY = ("tensorflow", "torch", "matplotlib", "sklearn", "tensorboardX", "orbax")
HEAVY += ("tensorflow_datasets", "safetensors")


@pytest.mark.parametrize("module", ["score_jax", "score_jax.main", "score_jax.build"])
def test_importing_loads_nothing_heavy(module):
    """A message about a misspelt option should not wait for a plotting library."""
    heavy = HEAVY + (("jax",) if module == "score_jax.main" else ())
    if module == "score_jax.build":
        heavy = tuple(name for name in heavy if name != "orbax")  # flax imports it
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert not set(heavy) & set(json.loads(done.stdout))
