"""What a test set costs under a model that is known exactly, by the flow and by the bound."""

import json
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config, tiny_images

from score_jax.build import build
from score_jax.data.order import evenly
from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.evaluation import bound as bounds
from score_jax.evaluation import likelihood as likelihoods
from score_jax.evaluation.spread import standard_errors
from score_jax.experiment import Experiment
from score_jax.predictions import exact

QUICK = dict(
    process=dict(name="vp"),
    parameterization=dict(view="eps", condition="time"),
    loss=dict(law="uniform"),
    sampler=dict(steps=3, grid="uniform"),
)
NOTHING = {"none": np.zeros(())}


def blobs(dimensions):
    """Two blobs of images: dark ones and light ones, of unequal width."""
    return GaussianMixture(
        np.array([0.4, 0.6]),
        np.stack([np.full(dimensions, -0.5), np.full(dimensions, 0.4)]),
        np.stack([np.full(dimensions, 0.6), np.full(dimensions, 0.8)]),
    )


class Flat:
    """A density of images, which it sees as points."""

    def __init__(self, density, shape):
        self.density, self.shape = density, shape

    def noised(self, alpha, sigma):
        return Flat(self.density.noised(alpha, sigma), self.shape)

    def score(self, x):
        return self.density.score(x.ravel()).reshape(self.shape)

    def posterior_mean(self, x, alpha, sigma):
        return self.density.posterior_mean(x.ravel(), alpha, sigma).reshape(self.shape)


@pytest.fixture
def images(monkeypatch):
    """The experiment of eight by eight images whose network is the blobs' exact one."""
    config = tiny_images(**QUICK)
    config["data"] = dict(name="digits", split="train")
    likelihood = dict(examples=8, batch_size=8, trace="exact", repeats=4)
    experiment = build(config | dict(test=dict(split="test"), likelihood=likelihood))
    predict = exact(experiment.process, Flat(blobs(64), (8, 8, 1)))
    monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
    return experiment


def test_bits_per_dim_of_an_exact_mixture_are_right_to_a_thousandth(images, tmp_path):
    """The mean over u of -log2 p(encoding of (p + u)/256), the change of units included."""
    found = likelihoods.evaluate(images, NOTHING, {}, tmp_path)
    end = found["made"]["end"]
    density = blobs(64).noised(images.process.alpha(end), images.process.sigma(end))
    gray = images.test.examples[evenly(8, 360)].reshape(8, 1, 64)
    u = np.random.default_rng(0).random((8, 500, 64))
    x = jnp.asarray((gray + u) / 128 - 1)  # [-1, 1)
    log_p = jax.vmap(jax.vmap(density.log_prob))(x)
    expected = -(float(log_p.mean()) / 64 + math.log(2 / 256)) / math.log(2)
    assert found["bits_per_dim"] == pytest.approx(expected, abs=1e-3)
    assert found["data"] == "digits/test" and found["standard_error_of"]["probes"] == 0.0
    assert found["standard_error_of"]["dequantization"] < found["standard_error_of"]["images"]


def test_random_probes_are_unbiased_and_their_error_is_told(images, tmp_path):
    truth = likelihoods.evaluate(images, NOTHING, {}, tmp_path)
    options = dict(trace="gaussian", probes=8, rtol=1e-4, atol=1e-4)
    config = images.config | dict(likelihood=images.config["likelihood"] | options)
    found = likelihoods.evaluate(build(config), NOTHING, {}, tmp_path)
    probes = found["standard_error_of"]["probes"]
    assert abs(found["bits_per_dim"] - truth["bits_per_dim"]) < 4 * probes
    assert 1e-4 < probes < 0.02


@pytest.mark.parametrize("batch_size", [1, 7, 64])
def test_every_example_of_the_test_set_counts_once_whatever_the_batch(
    batch_size, tmp_path, monkeypatch
):
    def measured(size, folder):
        config = tiny_config(**QUICK) | dict(
            test=dict(seed=3, size=25), likelihood=dict(batch_size=size, trace="exact", rtol=1e-3)
        )
        experiment = build(config)
        density = GaussianMixture(np.ones(1), np.array([[0.3, -0.4]]), np.array([[0.5, 1.5]]))
        predict = exact(experiment.process, density)
        monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
        return experiment, likelihoods.evaluate(experiment, NOTHING, {}, folder)

    experiment, found = measured(batch_size, tmp_path)
    _, whole = measured(25, tmp_path)
    assert found["examples"] == 25 and found["data"] == experiment.test.name
    assert found["nats_per_dim"] == pytest.approx(whole["nats_per_dim"], abs=1e-5)
    x, (m, s) = experiment.test.examples, (np.array([0.3, -0.4]), np.array([0.5, 1.5]))
    truth = 0.5 * ((x - m) / s) ** 2 + np.log(s) + 0.5 * math.log(2 * math.pi)
    assert found["nats_per_dim"] == pytest.approx(truth.mean(), abs=2e-3)


# --- the bound ---------------------------------------------------------------------------


def ladder(batch_size=30, **options):
    process = dict(name="ddpm", beta_min=1e-3, beta_max=0.2, levels=60)
    likelihood = dict(by="bound", batch_size=batch_size) | options
    more = dict(test=dict(seed=3, size=30), likelihood=likelihood)
    return build(tiny_config(process=process) | more)


def exact_bound(experiment, monkeypatch, tmp_path):
    density = GaussianMixture(np.ones(1), np.array([[0.3, -0.4]]), np.array([[0.5, 1.5]]))
    predict = exact(experiment.process, density)
    monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
    x, (m, s) = experiment.test.examples, (np.array([0.3, -0.4]), np.array([0.5, 1.5]))
    truth = 0.5 * ((x - m) / s) ** 2 + np.log(s) + 0.5 * math.log(2 * math.pi)
    return bounds.evaluate(experiment, NOTHING, {}, tmp_path), truth.mean()


def test_the_bound_is_above_the_exact_value_and_is_the_sum_of_its_terms(monkeypatch, tmp_path):
    found, truth = exact_bound(ladder(variance="large", repeats=20), monkeypatch, tmp_path)
    terms = [found["prior"], found["reconstruction"], *found["transitions"]]
    assert found["nats_per_dim"] == pytest.approx(sum(terms), rel=1e-9)
    assert truth < found["nats_per_dim"] < truth + 0.3
    assert len(found["transitions"]) == 59 and len(found["logsnr"]) == 60
    assert np.all(np.diff(found["logsnr"]) < 0) and min(found["transitions"]) > 0
    assert json.loads((tmp_path / "bound.json").read_text()) == found
    assert "variational bound of 30 examples" in bounds.report(found)


def test_pieces_of_other_test_data_of_the_same_name_are_not_taken(monkeypatch, tmp_path):
    """A stop between: the first data's pieces lie there when the second's are measured."""
    experiment = ladder(batch_size=10)
    other = experiment._replace(test=experiment.test._replace(examples=-experiment.test.examples))
    fresh, _ = exact_bound(other, monkeypatch, tmp_path / "fresh")
    monkeypatch.setattr(bounds, "drop", lambda *args: None)  # as a stop at the end would
    exact_bound(experiment, monkeypatch, tmp_path / "both")
    after, _ = exact_bound(other, monkeypatch, tmp_path / "both")
    assert after["nats_per_dim"] == fresh["nats_per_dim"]


def test_few_examples_are_spread_over_data_that_are_sorted_by_class():
    np.testing.assert_array_equal(evenly(4, 10), [0, 2, 5, 7])
    np.testing.assert_array_equal(evenly(10, 10), np.arange(10))


def test_the_bound_s_numbers_do_not_depend_on_the_batches(monkeypatch, tmp_path):
    one, _ = exact_bound(ladder(30), monkeypatch, tmp_path)
    other, _ = exact_bound(ladder(7), monkeypatch, tmp_path)
    assert one["examples"] == other["examples"] == 30
    np.testing.assert_allclose(one["transitions"], other["transitions"], rtol=1e-5)


def test_images_have_a_code_length_by_the_discretized_decoder(monkeypatch, tmp_path):
    """Above the exact one, -log2 Σ_k w_k Π_d P_kd(gray level), and by less than half a bit.

    Of gray levels inside: the tails that the decoder gives to the outermost are reached by none
    of the bound's paths.
    """
    process = dict(name="ddpm_quadratic", beta_min=1e-4, beta_max=0.12, levels=150)
    likelihood = dict(by="bound", examples=6, variance="large")
    experiment = build(tiny_images(process=process) | dict(likelihood=likelihood))
    images = np.random.default_rng(0).integers(40, 216, (6, 8, 8, 1), dtype=np.uint8)
    experiment = experiment._replace(data=experiment.data._replace(examples=images))
    predict = exact(experiment.process, Flat(blobs(64), (8, 8, 1)))
    monkeypatch.setattr(Experiment, "predict", lambda self, net: predict)
    found = bounds.evaluate(experiment, NOTHING, {}, tmp_path)
    assert found["made"]["decoder"] == "discretized"

    edge = lambda p: (2 * p - 256) / 255  # half-way between the levels p - 1 and p
    low, high = (edge(images.reshape(6, 1, 64).astype(float) + side) for side in (0, 1))
    m, s = np.array([-0.5, 0.4])[:, None], np.array([0.6, 0.8])[:, None]
    below = lambda x: jax.scipy.stats.norm.cdf((x - m) / s)
    log_p = jnp.log(below(high) - below(low)).sum(-1) + jnp.log(jnp.array([0.4, 0.6]))
    exactly = -float(jax.nn.logsumexp(log_p, axis=1).mean()) / 64 / math.log(2)
    assert exactly < found["bits_per_dim"] < exactly + 0.5
    assert 0 < found["reconstruction"] < exactly


def test_a_bound_needs_a_ladder_and_learned_variances_a_network_that_knows_them():
    with pytest.raises(UserError, match="needs a process with a ladder"):
        bounds.check(build(tiny_config(**QUICK)))
    with pytest.raises(UserError, match="learned_variance = True; use small or large"):
        bounds.check(ladder(variance="learned"))


# --- where the error comes from ----------------------------------------------------------


def test_the_parts_of_the_error_are_those_that_were_put_in():
    rng = np.random.default_rng(0)
    n, repeats = 4_000, 3
    between, noise, probes = 1.0, 0.5, 0.3
    values = between * rng.standard_normal((n, 1)) + noise * rng.standard_normal((n, repeats))
    values += probes * rng.standard_normal((n, repeats))
    total, parts = standard_errors(values, np.full((n, repeats), probes))
    root = math.sqrt(n)
    assert parts["images"] == pytest.approx(between / root, rel=0.05)
    assert parts["dequantization"] == pytest.approx(noise / math.sqrt(repeats) / root, rel=0.05)
    assert parts["probes"] == pytest.approx(probes / math.sqrt(repeats) / root, rel=1e-9)
    assert total == pytest.approx(np.std(values.mean(1), ddof=1) / root, rel=1e-9)
    squares = sum(part**2 for part in parts.values())
    assert total == pytest.approx(math.sqrt(squares), rel=1e-9)


def test_what_one_repeat_and_one_probe_cannot_tell_is_not_told():
    total, parts = standard_errors(np.arange(6.0)[:, None], None)
    assert total == pytest.approx(np.arange(6.0).std(ddof=1) / math.sqrt(6))
    assert parts == {"images": None, "probes": None, "dequantization": None}
    assert standard_errors(np.ones((1, 1)), None)[0] is None
