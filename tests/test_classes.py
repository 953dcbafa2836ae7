"""Networks that are told classes: in training, in sampling, and from the command line."""

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import tiny_config, write_config

from score_jax.build import build
from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.main import main
from score_jax.sampling import make_draw
from score_jax.training.loop import Batches
from score_jax.training.state import create, make_example_loss, step_key

pytestmark = pytest.mark.usefixtures("quick_compile")

CLASSES = 3
UNET = dict(name="unet", features=8, multipliers=(1,), blocks=1, attention=(), dropout=0.0)


@pytest.fixture
def plain(tmp_path, monkeypatch):
    """Images of one brightness each: black, gray and white, which are their classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    before = jax.config.jax_compilation_cache_dir
    labels = np.arange(60) % CLASSES
    brightness = np.array([0, 128, 255], np.uint8)[labels]
    images = np.broadcast_to(brightness[:, None, None, None], (60, 4, 4, 1))
    np.savez("plain.npz", x=images, y=labels)
    np.savez("unlabelled.npz", x=images)
    yield
    jax.config.update("jax_compilation_cache_dir", before)


def config_of(**changes):
    base = dict(
        data=dict(name="array", path="plain.npz"),
        process=dict(name="flow"),
        model=UNET | dict(classes=CLASSES, label_dropout=0.1),
        parameterization=dict(view="x0", condition="time"),
        loss=dict(name="denoising", view="x0"),
        sampler=dict(name="euler", steps=8),
        training=dict(steps=150, batch_size=32, learning_rate=1e-2, sample_every=1000),
        evaluation=dict(samples=9, batch_size=9, features="none"),
    )
    for section, options in changes.items():
        base[section] = base[section] | options
    return base


def trained_away(params):
    """Parameters off their zeros, as if trained."""
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


def test_what_is_drawn_is_of_the_class_that_was_asked_for(plain):
    """Trained for seconds, sampled from the command line: class i is as bright as its images."""
    write_config(Path("plain.py"), config_of())
    run = ["launch.py", "--config=plain.py", "--workdir=run"]
    assert main(run) == 0
    with np.load("run/samples.npz") as file:
        images, labels = file["arr_0"], file["arr_1"]
    np.testing.assert_array_equal(labels, [0, 1, 2] * 3)
    expected = np.array([0, 128, 255])[labels]
    assert np.abs(images.mean((1, 2, 3)) - expected).max() < 40

    assert main([*run, "--mode=sample", "--config.evaluation.label=2"]) == 0
    with np.load("run/samples.npz") as file:
        assert set(file["arr_1"]) == {2} and file["arr_0"].mean() > 215
    assert json.loads(Path("run/samples.json").read_text())["label"] == 2


def test_a_loss_is_that_of_the_examples_own_class(plain):
    experiment = build(config_of(model=dict(label_dropout=0.0)))
    params = trained_away(create(experiment).params)
    loss = jax.jit(make_example_loss(experiment))
    key, x = step_key(experiment.training, 0), experiment.data.examples[0]
    losses = [float(loss(params, key, 0, x, label)[0]) for label in (0, 1, -1)]
    assert len(set(losses)) == 3
    images, labels, _ = Batches(experiment)(0, 1)
    expected = np.array([0, 128, 255])[labels.ravel()]
    np.testing.assert_array_equal(images.reshape(len(expected), -1)[:, 0], expected)


def test_a_forgotten_class_is_that_of_no_class(plain):
    """With the dropout at nearly one, every class gives what none gives; in training alone."""
    module = dict(label_dropout=1.0 - 1e-6)
    experiment = build(config_of(model=module))
    params = trained_away(create(experiment).params)
    x = jax.random.normal(jax.random.key(1), experiment.data.shape)

    def answer(label, dropout_key):
        return jax.jit(experiment.net(params, label=label, dropout_key=dropout_key))(x, 3.0)

    none = answer(-1, None)
    np.testing.assert_array_equal(answer(1, jax.random.key(2)), none)
    assert np.abs(answer(1, None) - none).max() > 1e-3


def test_a_sample_depends_on_its_class_and_index_alone(plain):
    """However many are drawn at a time, and with which others."""
    experiment = build(config_of())
    params = trained_away(create(experiment).params)
    all_nine = make_draw(experiment, 9)(params, range(9)).samples
    np.testing.assert_array_equal(
        make_draw(experiment, 2)(params, range(4, 9)).samples, all_nine[4:]
    )


def test_a_network_without_classes_is_told_none():
    experiment = build(tiny_config())
    assert set(experiment.labels(np.arange(4))) == {-1}
    assert experiment.labels_of(np.arange(4)).tolist() == [-1] * 4


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(data=dict(path="unlabelled.npz")), "have no classes; use 0"),
        (dict(model=dict(classes=2)), "run from 0 to 2; unet needs at least 3"),
        (dict(model=dict(classes=-1)), "model.classes must be at least 0, got -1"),
        (dict(model=dict(label_dropout=1.0)), "model.label_dropout must lie in"),
        (dict(evaluation=dict(label=3)), "label = 3 must be -1 .none. or one of the 3 classes"),
        (dict(model=dict(classes=0), evaluation=dict(label=1)), "config.model.classes = 0"),
        (dict(data=dict(centered=False)), "config.model.centered = True and config.data.centered"),
    ],
)
def test_what_does_not_fit_the_classes_is_refused(changes, message, plain):
    with pytest.raises(UserError, match=message):
        build(config_of(**changes))


def test_data_without_labels_are_of_no_class():
    data = Dataset("points", np.zeros((5, 2), np.float32))
    assert data.labels is None
    experiment = build(tiny_config())._replace(data=data)
    assert experiment.labels_of(np.array([[0, 1], [2, 3]])).tolist() == [[-1, -1], [-1, -1]]
