"""Every config: it builds, its network is of the size it says, and it trains."""

import importlib.util
import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from score_jax import config as configs
from score_jax.build import build
from score_jax.classifying import classifier_of
from score_jax.errors import UserError
from score_jax.models import MODELS
from score_jax.models.base import count
from score_jax.options import choose
from score_jax.parallel import update_step
from score_jax.sections import Computing
from score_jax.training.loop import Batches
from score_jax.training.state import create, make_update

ROOT = Path(__file__).parent.parent
CONFIGS = sorted(ROOT.glob("configs/*.py"))
ON_IMAGES = [file for file in CONFIGS if "_toy" not in file.stem]
COUNTED = [f for f in ON_IMAGES if not any(word in f.stem for word in ("digits", "mnist"))]
PUBLISHED = [f for f in COUNTED if f.stem != "photos"]
TABLE = (ROOT / "docs" / "configs.md").read_text().splitlines()

# The shape of the images of a TFDS data set, which the tests do not download.
TFDS_SHAPES = {"cifar10": (32, 32, 3)}
FIXED_SHAPES = {"digits": (8, 8, 1), "mnist5k": (28, 28, 1)}

# What makes a network small; the rest of it stays as the config has it.
SMALL = {
    "adm": dict(features=8, multipliers=(1, 2), blocks=1, attention=(4,), head_channels=8),
    "dit": dict(width=16, depth=2, heads=2),
    "ncsnpp": dict(features=8, multipliers=(1, 2), blocks=1, attention=(4,)),
    "ncsnv2": dict(features=4, multipliers=(1, 2, 2)),
    "refinenet": dict(features=4),
    "unet": dict(features=8, multipliers=(1, 2), blocks=1, attention=(4,)),
}


@pytest.fixture(autouse=True)
def program_forgotten():
    """A hundred networks' programs at once are more than a process can hold."""
    yield
    jax.clear_caches()


def named(file):
    return file.stem


def image_shape(data):
    """The shape of a config's images, without its data."""
    if data.name == "folder":
        return data.size, data.size, data.get("channels", 3)
    return FIXED_SHAPES[data.name] if data.name in FIXED_SHAPES else TFDS_SHAPES[data.dataset]


def small(file, folder):
    """The config with a small network, few steps and random 8x8 images of ten classes; of points
    as it is."""
    config = configs.load(str(file))
    if file not in ON_IMAGES:
        return config
    shape = (8, 8, image_shape(config.data)[-1])
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (10, *shape), np.uint8)
    told = {"conditions": rng.normal(size=shape)} if "condition" in config.data else {}
    told = {name: value[None].repeat(10, 0) for name, value in told.items()}
    np.savez(folder / "x.npz", x=images, y=np.arange(10), **told)
    kept = ("centered", "flip", "dequantize")
    encoding = {name: config.data[name] for name in kept if name in config.data}
    config.test = {}
    config.data = {"name": "array", "path": str(folder / "x.npz"), **encoding}
    with config.ignore_type():
        config.model.update(SMALL[config.model.name])
        config.training.update(steps=2, batch_size=2)
        config.evaluation.update(samples=2, batch_size=2)
        if "classifier" in config:
            config.classifier.update(SMALL["unet"], steps=2, batch_size=2)
    return config


def size_of(file):
    """The number of parameters of a config's network, at full size, from shapes alone."""
    config = configs.load(str(file))
    shared, options = Computing.__annotations__, config.model.to_dict()
    section = {name: value for name, value in options.items() if name not in shared}
    factory, options = choose("model", MODELS, section)
    return count(factory(**options), image_shape(config.data))


@pytest.mark.parametrize("file", COUNTED, ids=named)
def test_its_network_has_as_many_parameters_as_it_says(file):
    parameters = size_of(file)
    said = re.findall(r"\b\d{1,3}(?:,\d{3})+\b", " ".join(file.read_text().split('"""')[1:2]))
    assert f"{parameters:,}" in said
    (row,) = [line for line in TABLE if line.startswith(f"| `{file.stem}` |")]
    assert f"| {parameters:,} |" in row


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("ddpm_cifar", 35_746_307),  # Ho et al. 2020, appendix B: 35.7 million
        ("ddpm_vp_cifar", 35_218_947),  # from here on score_sde's
        ("ncsn_cifar", 34_428_675),
        ("ddpm_bedroom256", 113_673_219),  # Ho et al. 2020: 114 million
        ("ncsnpp_ve_cifar", 62_693_251),
        ("ncsnpp_ve_continuous_cifar", 62_758_915),
        ("ncsnpp_ve_deep_cifar", 107_587_075),
        ("ddpmpp_vp_continuous_cifar", 61_804_419),
        ("ddpmpp_subvp_deep_cifar", 106_632_579),
        ("ncsnpp_ffhq256", 65_574_549),
        ("ncsnpp_ffhq1024", 105_785_896),
        ("ncsnv2_bedroom128", 83_445_379),
        ("edm_vp_cifar", 55_732_739),  # Karras et al. 2022: 55.7 million
        ("edm_ve_cifar", 56_395_523 + 128),  # 56.4 million, and the fixed frequencies
    ],
)
def test_a_published_network_has_the_published_size(name, parameters):
    assert size_of(ROOT / "configs" / f"{name}.py") == parameters


def kind(file):
    """What a config's first step is made of; of those with the same, one is really trained."""
    config = configs.load(str(file))
    names = [config[section].get("name") for section in ("process", "model", "loss")]
    return (*names, config.parameterization.view, config.loss.get("law"), config.model.get("code"))


ONE_OF_EACH_KIND = list({kind(file): file for file in ON_IMAGES}.values())


@pytest.mark.parametrize("file", ON_IMAGES, ids=named)
def test_its_training_step_can_be_traced(file, tmp_path, quick_compile):
    """Everything about them but their numbers: shapes, conditions, options that must fit."""
    experiment = build(small(file, tmp_path))
    state = create(experiment)
    step = update_step(make_update(experiment))
    after, metrics = jax.eval_shape(step, state, Batches(experiment)(0, 1))
    assert jax.tree.map(np.shape, after) == jax.tree.map(np.shape, state)
    assert metrics.loss.dtype == np.float32


@pytest.mark.parametrize("file", ONE_OF_EACH_KIND, ids=named)
def test_it_takes_a_training_step(file, tmp_path, quick_compile):
    """One update of a small network: a finite loss, a gradient, parameters that have moved."""
    experiment = build(small(file, tmp_path))
    state = create(experiment)
    before = jax.device_get(state.params)
    state, metrics = update_step(make_update(experiment))(state, Batches(experiment)(0, 1))
    after = jax.device_get(state.params)
    assert np.isfinite(metrics.loss).all() and np.isfinite(metrics.grad_norm).all()
    assert float(np.ravel(metrics.grad_norm)[0]) > 0
    changed = [np.any(a != b) for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after))]
    assert any(changed) and int(state.step) == 1


def test_photos_of_every_size_that_divides_by_8_need_their_size_alone(tmp_path):
    """The network takes all of them; one that has few resolutions of 32's is built whole."""
    Image.new("RGB", (150, 140)).save(tmp_path / "a.jpg")
    config = configs.load(str(ROOT / "configs" / "photos.py"))
    config.data.path, config.data.size = str(tmp_path), 104
    experiment = build(config)
    assert experiment.data.shape == (104, 104, 3)
    for size in range(32, 129, 8):
        experiment.module.check((size, size, 3))


def test_photos_that_are_not_there_are_asked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="no folder photos .*--config.data.path=<folder>"):
        build(configs.load(str(ROOT / "configs" / "photos.py")))


WITH_CLASSIFIERS = [file for file in CONFIGS if "classifier=" in file.read_text()]


@pytest.mark.parametrize("file", WITH_CLASSIFIERS, ids=named)
def test_its_classifier_takes_a_training_step(file, tmp_path, quick_compile):
    experiment = classifier_of(build(small(file, tmp_path)))
    _, metrics = update_step(make_update(experiment))(create(experiment), Batches(experiment)(0, 1))
    assert np.allclose(metrics.loss, np.log(10)) and float(np.ravel(metrics.grad_norm)[0]) > 0


@pytest.mark.parametrize("file", CONFIGS, ids=named)
def test_building_what_was_resolved_resolves_to_the_same(file, tmp_path):
    """config.json in a workdir is a config: it names everything and hides nothing."""
    resolved = build(small(file, tmp_path)).config
    assert build(json.loads(json.dumps(resolved))).config == resolved


@pytest.mark.parametrize("file", CONFIGS, ids=named)
def test_it_says_what_it_is(file):
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.__doc__ and module.__doc__.splitlines()[0].endswith(".")
    for command in (line for line in module.__doc__.splitlines() if "--config=" in line):
        assert f"--config=configs/{file.name}" in command, command


@pytest.mark.parametrize("file", PUBLISHED, ids=named)
def test_it_says_where_it_comes_from(file):
    text = file.read_text().split('"""')[1]
    assert re.search(r"arXiv \d{4}\.\d{5}", text) and "Published:" in text
