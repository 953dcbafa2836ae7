"""What a report says to do next works as it stands there."""

import re
import shlex
from dataclasses import replace
from html import unescape

import jax
import numpy as np
import pytest
from conftest import tiny_config, tiny_images, write_config
from PIL import Image

from score_jax.build import build
from score_jax.data.base import Dataset
from score_jax.errors import UserError
from score_jax.evaluation import bound as bounds
from score_jax.evaluation.refusals import check
from score_jax.hints import hints
from score_jax.main import main
from score_jax.models.base import init_params

pytestmark = pytest.mark.usefixtures("quick_compile")

PIXELS = {"evaluation.features": "none"}
FEWER = {"evaluation.allow_fewer": True}


def experiment(n=30, shape=(8, 8, 1), labels=False, config=None, **evaluation):
    """One of n images, by default without labels."""
    config = tiny_images() if config is None else config
    config |= dict(evaluation=config["evaluation"] | evaluation)
    images = np.random.default_rng(0).integers(0, 256, (n, *shape), dtype=np.uint8)
    labels = np.arange(n, dtype=np.int32) % 3 if labels else None
    return build(config)._replace(data=Dataset("photos", images, labels))


@pytest.fixture(autouse=True)
def no_weights(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "nowhere"))


@pytest.mark.parametrize(
    "given, wanted",
    [
        (dict(labels=True, features="classifier"), {}),
        (dict(labels=True, features="classifier", allow_fewer=False), FEWER),
        (dict(features="classifier"), PIXELS),
        (dict(features="classifier", allow_fewer=False), PIXELS | FEWER),
        (dict(features="inception", allow_fewer=False), PIXELS | FEWER),
        (dict(features="none", reference="lost.npz"), {"evaluation.reference": None}),
        (dict(features="classifier", samples=50_000, allow_fewer=False), PIXELS),
        (dict(features="classifier", shape=(64, 64, 3)), None),  # too wide for a covariance
        (dict(n=1), None),
        (dict(n=0), None),
    ],
)
def test_the_hint_for_evaluate_is_what_is_missing_and_no_more(given, wanted, tmp_path):
    found = hints(experiment(**given), tmp_path)["evaluate"]
    assert found == wanted


def levels_only(**likelihood):
    """The config of a network that has parameters for each level."""
    config = tiny_images(training=dict(steps=1), sampler=dict(steps=3))
    config["data"]["centered"] = False
    config["process"]["levels"] = 3
    model = dict(name="refinenet", features=8, levels=3)
    return config | dict(model=model, likelihood=likelihood)


def test_the_likelihood_of_a_network_that_knows_levels_only_is_hinted_as_a_bound(tmp_path):
    of = lambda config: hints(experiment(config=config), tmp_path)["likelihood"]
    assert of(tiny_images()) == {} == of(levels_only(by="bound"))
    assert of(levels_only()) == {"likelihood.by": "bound"}
    assert of(levels_only(variance="learned")) is None


def test_the_likelihood_of_a_process_without_a_ladder_is_hinted_by_the_flow(tmp_path):
    continuous = dict(
        process=dict(name="vp", beta_min=0.1, beta_max=20.0),
        loss=dict(name="denoising", law="uniform"),
        parameterization=dict(view="eps", condition="time"),
        sampler=dict(name="ancestral", steps=12, grid="uniform"),
    )
    config = tiny_config(**continuous) | dict(likelihood=dict(by="bound"))
    assert hints(build(config), tmp_path)["likelihood"] == {"likelihood.by": "ode"}


def test_without_data_there_is_nothing_to_train_on_or_to_measure(tmp_path):
    found = hints(experiment(n=0), tmp_path)
    assert found == dict(train=None, sample={}, evaluate=None, likelihood=None)


def test_samples_guided_by_a_classifier_that_is_not_there_are_not_hinted(tmp_path):
    guided = experiment(labels=True)
    guided = guided._replace(guidance=replace(guided.guidance, weight=1.0, by="classifier"))
    found = hints(guided, tmp_path)
    assert found["sample"] is None and found["evaluate"] is None and found["train"] == {}


def test_all_that_stands_against_an_evaluation_is_said_at_once():
    with pytest.raises(UserError) as error:
        check(experiment(features="classifier", allow_fewer=False, reference="lost.npz"))
    said = str(error.value)
    assert said.startswith("there are 3 reasons") and said.count("\n") == 3
    for word in ("allow_fewer=True", "no labels", "lost.npz"):
        assert word in said
    with pytest.raises(UserError) as error:
        check(experiment(features="classifier"))
    assert str(error.value).startswith("photos has no labels") and "\n" not in str(error.value)
    check(experiment(features="none"))


def commands(workdir, mode):
    """The command lines for a mode that the report hints, as words."""
    page = (workdir / "report.html").read_text()
    found = re.findall(r'class="quiet">[^<]*<code>python ([^<]*)</code>', page)
    words = [shlex.split(unescape(command)) for command in found]
    return [line for line in words if f"--mode={mode}" in line]


def photos(folder):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(20):
        ends = rng.integers(0, 256, (2, 1, 3))
        image = np.linspace(*ends, 12).repeat(9, axis=1).astype(np.uint8)
        Image.fromarray(image).save(folder / f"{i}.png")
    return folder


def test_every_command_in_the_report_of_a_run_of_own_photos_works(tmp_path):
    """As a new user would follow it: a folder without classes, samples as many as it pleases."""
    config = tiny_images(training=dict(steps=2), sampler=dict(steps=2))
    config |= dict(
        data=dict(name="folder", path=str(photos(tmp_path / "photos")), size=8),
        evaluation=dict(samples=9, batch_size=9),
        likelihood=dict(rtol=0.1, atol=0.1),
    )
    run = tmp_path / "a run"
    file = write_config(tmp_path / "config.py", config)
    assert main(["launch.py", f"--config={file}", f"--workdir={run}"]) == 0
    for mode, result in dict(evaluate="evaluation.json", likelihood="likelihood.json").items():
        (words,) = commands(run, mode)
        assert not (run / result).exists()
        assert main(words) == 0 and (run / result).is_file()
        assert not commands(run, mode)


def test_the_bound_that_is_hinted_for_a_network_of_levels_can_be_measured(tmp_path):
    of_levels = build(levels_only(by="bound", examples=4, batch_size=4))
    params = init_params(of_levels.module, jax.random.key(0), of_levels.data.shape)
    assert np.isfinite(bounds.evaluate(of_levels, params, {}, tmp_path)["bits_per_dim"])
