"""The shape of the code: who imports whom, where devices and packages live, what configs build."""

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from score_jax import config as configs
from score_jax.build import build
from score_jax.models.base import count

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "score_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted(ROOT.glob("configs/*.py"))

LAYERS = (
    ("errors", "files", "types"),
    ("hosts", "keys", "limits", "odes", "signals"),
    ("densities", "processes", "plotting", "options"),
    ("predictions", "times"),
    ("probability_flow", "variances"),
    ("losses", "samplers", "likelihood", "models", "data", "config"),
    ("checks", "sections"),
    ("build", "parallel", "workdir"),
    ("pieces", "sampling", "training", "evaluation"),
    ("commands", "interop", "main"),
)
LEVEL = {room: level for level, rooms in enumerate(LAYERS) for room in rooms}

# Besides what lies below it, and itself, a room may import these of its own layer.
NEIGHBORS = {
    "odes": {"limits"},
    "workdir": {"parallel"},
    "training": {"sampling"},
    "variances": {"predictions"},
    "evaluation": {"pieces"},
    "main": {"commands"},
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
    assert ours == ["score_jax.main.main"]


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
    assert importers("torch") == {"score_jax/interop/tensors.py"}


def test_matplotlib_is_imported_in_one_file():
    assert importers("matplotlib") == {"score_jax/plotting.py"}


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


# The shape of the images of a TFDS data set, which the tests do not download.
TFDS_SHAPES = {"cifar10": (32, 32, 3), "mnist": (28, 28, 1), "celeb_a": (218, 178, 3)}


def shape_of(data):
    """The shape of one image of a config's data section, without its data; None for points."""
    if data.name in ("toy", "digits"):
        return None
    if data.name == "tfds":
        return TFDS_SHAPES[data.dataset.split("/")[0].split(":")[0]]
    if data.name == "mnist5k":
        return 28, 28, 1
    assert data.name == "folder", f"say here what an image of {data.name} looks like"
    return data.size, data.size, data.get("channels", 3)


def built(file, folder):
    """The experiment of a config, on an array of small images where its data is elsewhere."""
    config = configs.load(str(file))
    shape = shape_of(config.data)
    if shape is not None:
        np.savez(folder / "x.npz", x=np.zeros((10, *shape), np.uint8), y=np.arange(10))
        encoding = {
            name: config.data[name]
            for name in ("centered", "flip", "dequantize")
            if name in config.data
        }
        config.data = {"name": "array", "path": str(folder / "x.npz"), **encoding}
    return build(config)


@pytest.mark.parametrize("file", CONFIGS, ids=name_of)
def test_every_config_builds_a_network_that_takes_its_data(file, tmp_path):
    experiment = built(file, tmp_path)
    assert count(experiment.module, experiment.data.shape) > 0


@pytest.mark.parametrize("file", CONFIGS, ids=name_of)
def test_building_what_was_resolved_resolves_to_the_same(file, tmp_path):
    """config.json in a workdir is a config: it names everything and hides nothing."""
    resolved = built(file, tmp_path).config
    assert build(json.loads(json.dumps(resolved))).config == resolved


@pytest.mark.parametrize("file", CONFIGS, ids=name_of)
def test_every_config_says_what_it_is(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__ and module.__doc__.splitlines()[0].endswith(".")
    for command in (line for line in module.__doc__.splitlines() if "--config=" in line):
        assert f"--config=configs/{file.name}" in command, command


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # Ho et al. 2020, appendix B: 35.7 million.
        ("ddpm_cifar", 35_746_307),
        # Song & Ermon 2019 give no number; the re-implementation in score_sde has as many.
        ("ncsn_cifar", 34_428_675),
    ],
)
def test_the_papers_networks_have_the_papers_size(name, parameters, tmp_path):
    experiment = built(ROOT / "configs" / f"{name}.py", tmp_path)
    assert count(experiment.module, experiment.data.shape) == parameters
