"""Denoising losses: their minimum in closed form, their gradient that of explicit matching."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, exact_score, make_process, mixture

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.losses import LOSSES
from score_jax.losses.base import WEIGHTS
from score_jax.losses.denoising import denoising
from score_jax.losses.score_matching import explicit_of
from score_jax.predictions import exact, from_score, read
from score_jax.times import LAWS, make_law

LADDERS = ("ncsn", "ddpm")
NCSN = dict(law="ladder", view="score", weight="sigma2", reduction="half_sum")
DDPM = dict(law="ladder", view="eps", weight="one", reduction="mean")


def losses(loss, predict, density, n=20_000):
    """The loss of n examples drawn from the density."""

    def one(key):
        data_key, loss_key = jax.random.split(key)
        return loss(loss_key, predict, density.sample(data_key))

    return np.asarray(draws(one, n), np.float64)


def test_every_law_and_weight_is_in_a_published_loss():
    """And so in the test that the exact model minimizes it."""
    choices = [PUBLISHED[name] for name in PUBLISHED]
    assert {c["law"] for c in choices if "law" in c} == set(LAWS)
    assert {c.get("weight", "one") for c in choices} == set(WEIGHTS)


@pytest.mark.parametrize("name", LADDERS)
def test_at_the_exact_score_the_loss_is_the_noise_nobody_can_predict(name):
    """For x_0 ~ N(m, diag s²): E|ε - E[ε|x_t]|² = Σ_d α² s_d²/(α² s_d² + σ²), on average."""
    process, std = make_process(name), np.array([0.3, 1.7])
    p = GaussianMixture(np.ones(1), np.array([[2.0, -1.0]]), std[None])
    t = np.arange(1, process.levels + 1) / process.levels
    alpha, sigma = (np.asarray(jax.vmap(f)(t))[:, None] for f in (process.alpha, process.sigma))
    expected = (alpha**2 * std**2 / (alpha**2 * std**2 + sigma**2)).mean()

    predict = from_score(process, exact_score(process, p))
    got = losses(denoising(process, **DDPM), predict, p)
    assert abs(got.mean() - expected) < 4 * got.std() / np.sqrt(len(got))


@pytest.mark.parametrize("name", LADDERS)
def test_the_exact_score_has_a_lower_loss_than_its_neighbors(name):
    process, p = make_process(name), mixture()
    loss, score = denoising(process, **NCSN), exact_score(process, p)
    best = losses(loss, from_score(process, score), p)
    for wrong in (
        lambda x, t: 0.8 * score(x, t),
        lambda x, t: 1.2 * score(x, t),
        lambda x, t: score(x, t) + 0.3 / process.sigma(t),
        lambda x, t: score(x + 0.3, t),
    ):
        excess = losses(loss, from_score(process, wrong), p) - best
        assert excess.mean() > 5 * excess.std() / np.sqrt(len(excess))


@pytest.mark.parametrize("name", LADDERS)
def test_ncsns_loss_and_ddpms_are_one_number_up_to_reduction(name, x64):
    """σ² |s + ε/σ|² = |ε - ε_θ|²: half the sum is D/2 times the mean."""
    process, p = make_process(name), mixture()
    predict = from_score(process, lambda x, t: -jnp.tanh(x))
    for key in jax.random.split(jax.random.key(3), 5):
        x_0 = p.sample(key)
        ncsn = denoising(process, **NCSN)(key, predict, x_0)
        ddpm = denoising(process, **DDPM)(key, predict, x_0)
        np.testing.assert_allclose(ncsn, ddpm * x_0.size / 2, rtol=1e-10)


def test_denoising_has_the_gradient_of_explicit_score_matching():
    """Vincent 2011, equation 11: both have the same gradient in a model's parameters.

    Model: score (c_1 x + c_2) / σ²; explicit: E ½ σ² |s_c - ∇ log p_t|² over the same x_t.
    """
    process, p, c = make_process("ncsn"), mixture(), jnp.array([-0.7, 0.4])
    model = lambda c: lambda x, t: (c[0] * x + c[1]) / process.sigma(t) ** 2
    loss = denoising(process, **NCSN)

    def both(key):
        data_key, loss_key = jax.random.split(key)
        x_0, seen = p.sample(data_key), []

        def remember(x, t):
            seen.append((x, t))
            return from_score(process, model(c))(x, t)

        loss(loss_key, remember, x_0)
        (x, t), exact = seen[0], exact_score(process, p)

        def explicit(c):
            gap = model(c)(x, t) - exact(x, t)
            return 0.5 * process.sigma(t) ** 2 * jnp.sum(gap**2)

        denoise = lambda c: loss(loss_key, from_score(process, model(c)), x_0)
        return jax.grad(denoise)(c) - jax.grad(explicit)(c)

    gap = np.asarray(draws(both, 40_000), np.float64)
    assert np.all(np.abs(gap.mean(0)) < 4 * gap.std(0) / np.sqrt(len(gap)))


@pytest.mark.parametrize("view", ["x0", "eps", "score", "v", "velocity"])
def test_a_network_of_any_view_can_be_trained_in_any_other(view, x64):
    """The loss sees the answer, not the network's view of it."""
    process, key, x_0 = make_process("ddpm"), jax.random.key(1), np.array([0.2, -0.9])
    y = lambda x, t: read("score", -jnp.sin(x), process, x, t)
    direct = denoising(process, **DDPM)(key, y, x_0)
    through = lambda x, t: read(view, getattr(y(x, t), view), process, x, t)
    np.testing.assert_allclose(denoising(process, **DDPM)(key, through, x_0), direct, rtol=1e-8)


def test_the_ladder_law_draws_every_level_equally_often():
    process = make_process("ncsn")
    u = (np.arange(100 * process.levels) + 0.5) / (100 * process.levels)
    t = jax.vmap(lambda u: LAWS["ladder"](process, u))(u)
    levels, counts = np.unique(np.round(np.asarray(t) * process.levels), return_counts=True)
    assert list(levels) == list(range(1, process.levels + 1)) and set(counts) == {100}


def test_a_ladder_law_without_a_ladder_is_refused():
    with pytest.raises(UserError, match="'ladder' needs a process with a ladder"):
        denoising(make_process("vp"), **NCSN)


MAXIMUM_LIKELIHOOD = dict(view="score", weight="likelihood", reduction="half_sum")
PUBLISHED = {
    "ncsn": NCSN,
    "ddpm": DDPM,
    "maximum likelihood": dict(law="importance", **MAXIMUM_LIKELIHOOD),
    "edm": dict(law="lognormal", view="x0", weight="edm"),
    "min-snr": dict(law="uniform", view="x0", weight="min_snr"),
    "flow matching": dict(law="uniform", view="velocity"),
    "flow matching, logit-normal": dict(law="logit_normal", view="velocity"),
    "at one level": dict(at=0.3),
}


OTHERS = {
    "explicit": dict(density=mixture(), at=0.3),
    "implicit": dict(at=0.3),
    "sliced": dict(at=0.3),
    "finite_difference": dict(at=0.3),
    "variational": dict(variance="large", decoder="gaussian"),
    "hybrid": dict(decoder="gaussian"),
}


def on(name):
    """A process that a loss is published for, whose time is not a ladder's unless it must be."""
    return make_process({"ncsn": "ncsn", "ddpm": "ddpm", "edm": "edm"}.get(name, "flow"))


CASES = [("denoising", name, options) for name, options in PUBLISHED.items()]
CASES += [(name, "ddpm", OTHERS.get(name, {})) for name in LOSSES if name != "denoising"]


@pytest.mark.parametrize(
    ("loss_name", "name", "options"), CASES, ids=[f"{a}, {b}" for a, b, _ in CASES]
)
def test_the_exact_model_minimizes_every_loss(loss_name, name, options):
    """Against four neighbors, on the same draws: every entry of LOSSES, at its least."""
    process, p = on(name), mixture()
    loss = (LOSSES | {"explicit": explicit_of})[loss_name](process, **options)

    def bent(scale, shift):
        def predict(x, t):
            v = scale * exact(process, p)(x, t).v + shift
            return read("v", v, process, x, t)._replace(variance=jnp.full(2, 0.5))

        return predict

    def excesses(key):
        data_key, loss_key = jax.random.split(key)
        x_0 = p.sample(data_key)
        at_best = loss(loss_key, bent(1.0, 0.0), x_0)
        wrong = [bent(0.8, 0.0), bent(1.2, 0.0), bent(1.0, 0.2), bent(1.0, -0.2)]
        return jnp.stack([loss(loss_key, w, x_0) - at_best for w in wrong])

    got = np.asarray(draws(excesses, 20_000 if loss_name == "denoising" else 100_000), np.float64)
    assert np.all(got.mean(0) > 4 * got.std(0) / np.sqrt(len(got)))


def test_edms_weight_on_x0_is_a_unit_weight_on_f(x64):
    """Karras et al. 2022: λ(σ) c_out(σ)² = 1."""
    p, predict = mixture(), lambda process: from_score(process, lambda x, t: -jnp.tanh(x))
    for process in (make_process("edm"), make_process("vp")):
        for key in jax.random.split(jax.random.key(3), 4):
            pair = [
                denoising(process, law="lognormal", sigma_data=0.7, **choice)(
                    key, predict(process), p.sample(key)
                )
                for choice in (dict(view="x0", weight="edm"), dict(view="F"))
            ]
            np.testing.assert_allclose(*pair, rtol=1e-9)


def test_min_snr_clips_the_weight_of_eps_too(x64):
    """min(SNR, 5) on x0 is min(SNR, 5)/SNR on eps: Hang et al. 2023, section 3.4."""
    process, key, x_0 = make_process("vp"), jax.random.key(0), np.array([0.2, -0.9])
    predict = from_score(process, lambda x, t: -jnp.tanh(x))
    for at in (0.05, 0.3, 0.8):
        snr = np.exp(process.logsnr(at))
        clipped = denoising(process, at=at, view="x0", weight="min_snr")(key, predict, x_0)
        plain = denoising(process, at=at, view="eps")(key, predict, x_0)
        np.testing.assert_allclose(clipped, min(snr, 5.0) / snr * plain, rtol=1e-9)


def test_importance_leaves_the_likelihood_loss_no_weight(process, x64):
    """At a time of the law it is ½ |ε - ε_θ|² times one constant, since g²/σ² = -d logsnr/dt."""
    predict = from_score(process, lambda x, t: -x / (1 + process.sigma(t) ** 2))
    loss = denoising(process, law="importance", **MAXIMUM_LIKELIHOOD)
    law, x_0, key = make_law(process, "importance"), np.array([0.2, -0.9]), jax.random.key(1)
    ratios = []
    for u in (0.1, 0.5, 0.9):
        at = float(law(u)[0])
        plain = denoising(process, at=at, view="eps", reduction="half_sum")
        ratios.append(loss(key, predict, x_0, u) / plain(key, predict, x_0, u))
    np.testing.assert_allclose(ratios, ratios[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["vp", "ve", "cosine"])
def test_importance_leaves_the_likelihood_loss_its_mean(name):
    process, p = make_process(name), mixture()
    predict = from_score(process, lambda x, t: -x / (1 + process.sigma(t) ** 2))
    uniform, importance = (
        losses(denoising(process, law=law, **MAXIMUM_LIKELIHOOD), predict, p, 40_000)
        for law in ("uniform", "importance")
    )
    error = np.hypot(uniform.std(), importance.std()) / np.sqrt(40_000)
    assert abs(uniform.mean() - importance.mean()) < 4 * error


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(view="eps", weight="edm"), "'edm' weights the error of loss.view = 'x0', got 'eps'"),
        (dict(view="eps", weight="likelihood"), "of loss.view = 'score', got 'eps'"),
        (dict(at=1.5), r"loss.at must lie in \[0, 1\], got 1.5"),
        (dict(at=0.0), "loss.at = 0.0: there is no noise"),
        (dict(view="posterior_mean"), "needs a process with a ladder"),
        (dict(sigma_data=0.0), "loss.sigma_data must be positive, got 0.0"),
        (dict(law_mean=1.0), "loss.law_mean = 1.0"),
    ],
)
def test_choices_that_do_not_fit_are_refused(options, words):
    with pytest.raises(UserError, match=words):
        denoising(make_process("vp"), **options)


@pytest.mark.parametrize("option", ["law", "view", "weight", "reduction"])
def test_an_unknown_name_is_refused(option):
    with pytest.raises(UserError, match=f"unknown loss.{option} 'nope'; known"):
        denoising(make_process("vp"), **{option: "nope"})
