"""The variational bound: its terms in closed form, its limit the exact likelihood, its losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, make_process, mixture, tiny_config, write_config
from scipy.stats import norm

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.losses.decoders import discretized_gaussian, gaussian
from score_jax.losses.denoising import denoising
from score_jax.losses.variational import (
    ask,
    bound,
    gaussian_kl,
    hybrid,
    level_term,
    prior_term,
    variational,
)
from score_jax.main import main
from score_jax.models import MLP, UNet
from score_jax.models.base import as_net, init_params
from score_jax.parameterization import Parameterization, make_predict
from score_jax.predictions import exact, read
from score_jax.processes import Tabulated, posterior

pytestmark = pytest.mark.usefixtures("quick_compile")

BETAS = np.linspace(0.01, 0.3, 12)
BAR = np.cumprod(1.0 - BETAS)
SMALL = BETAS * (1.0 - np.append(1.0, BAR[:-1])) / (1.0 - BAR)
X_0, EPS = np.array([0.2, -0.9]), np.array([1.1, 0.4])


def ladder():
    return Tabulated.from_betas(BETAS)


def ddpm(levels):
    """Ho et al.'s ladder with another number of steps, and as much noise in all."""
    return Tabulated.from_betas(np.linspace(1e-4, 0.02, levels) * 1000 / levels)


def some_net(view="eps", share=None):
    """A network that is wrong everywhere, and where asked for knows a variance."""

    def predict(x, t):
        prediction = read(view, jnp.sin(2.0 * x) + t, ladder(), x, t)
        return prediction._replace(variance=None if share is None else jnp.full(x.shape, share))

    return predict


def term(predict, level, variance="small", decoder=gaussian, x_0=X_0):
    prediction = ask(ladder(), predict, x_0, EPS, level)
    return level_term(ladder(), prediction, x_0, level, variance, decoder)


def test_the_divergence_of_two_gaussians_is_its_integral(x64):
    """∫ q log q/p, with other means and other variances, by quadrature."""
    x, v_q, v_p, expected = np.linspace(-12, 12, 200_001), 0.2, 0.7, 0.0
    for difference in (0.3, -1.1):
        q, p = norm(0.5, v_q**0.5), norm(0.5 - difference, v_p**0.5)
        expected += np.trapezoid(q.pdf(x) * (q.logpdf(x) - p.logpdf(x)), x)
    got = gaussian_kl(np.array([0.3, -1.1]), np.log(v_q), np.log(v_p))
    np.testing.assert_allclose(got, expected, rtol=1e-9)
    assert float(gaussian_kl(np.zeros(3), np.log(0.3), np.log(0.3))) == 0.0


def test_the_prior_term_is_the_divergence_of_what_is_left_of_the_data(x64):
    expected = gaussian_kl(np.sqrt(BAR[-1]) * X_0, np.log(1 - BAR[-1]), np.log(1 - BAR[-1]))
    np.testing.assert_allclose(prior_term(ladder(), X_0), expected, rtol=1e-10)
    ncsn = Tabulated.from_sigmas([0.1, 3.0])
    np.testing.assert_allclose(prior_term(ncsn, X_0), np.sum(X_0**2) / 18.0, rtol=1e-10)


@pytest.mark.parametrize("level", range(1, 12))
def test_a_transition_is_ho_et_al_s_weighted_error_of_the_noise(level, x64):
    """Equation 12: β²/(2 σ² α (1 - ᾱ)) |ε - ε_θ|², for the small variance σ²."""
    predict, t = some_net("eps"), (level + 1) / 12
    x_t = np.sqrt(BAR[level]) * X_0 + np.sqrt(1 - BAR[level]) * EPS
    error2 = np.sum((EPS - np.asarray(predict(x_t, t).eps)) ** 2)
    weight = BETAS[level] ** 2 / (2 * SMALL[level] * (1 - BETAS[level]) * (1 - BAR[level]))
    np.testing.assert_allclose(term(predict, level), weight * error2, rtol=1e-10)


@pytest.mark.parametrize("variance", ["small", "large"])
def test_a_transition_with_either_variance_is_the_divergence_from_q(variance, x64):
    predict, level, t = some_net("x0"), 5, 6 / 12
    x_t = np.sqrt(BAR[level]) * X_0 + np.sqrt(1 - BAR[level]) * EPS
    b = np.sqrt(BAR[level - 1]) * BETAS[level] / (1 - BAR[level])  # Ho et al., equation 7
    v_q, v_p = SMALL[level], (SMALL if variance == "small" else BETAS)[level]
    error2 = np.asarray(b * (X_0 - predict(x_t, t).x0)) ** 2
    expected = 0.5 * np.sum(np.log(v_p / v_q) + (v_q + error2) / v_p - 1.0)
    np.testing.assert_allclose(term(predict, level, variance), expected, rtol=1e-10)


@pytest.mark.parametrize("level", [1, 4, 11])
def test_a_network_of_the_posterior_s_mean_is_judged_by_it(level, x64):
    """L_{t-1} = |μ - μ_θ|²/(2 c²): Ho et al. 2020, equation 8."""
    process, s, t = ladder(), level / 12, (level + 1) / 12
    a, b, c = posterior(process, s, t)
    x_t = np.sqrt(BAR[level]) * X_0 + np.sqrt(1 - BAR[level]) * EPS
    error = a * x_t + b * X_0 - (jnp.sin(2.0 * x_t) + t)
    expected = np.sum(np.asarray(error) ** 2) / (2 * c**2)
    np.testing.assert_allclose(term(some_net("posterior_mean"), level), expected, rtol=1e-8)


def test_a_bound_is_its_terms(x64):
    process, key, predict = ladder(), jax.random.key(3), some_net()
    result = bound(key, process, predict, X_0, variance="large", decoder=gaussian)
    assert result.transitions.shape == (11,)
    for level, got in enumerate([result.reconstruction, *result.transitions]):
        eps = jax.random.normal(jax.random.fold_in(key, level), (2,), float)
        prediction = ask(process, predict, X_0, eps, level)
        expected = level_term(process, prediction, X_0, level, "large", gaussian)
        np.testing.assert_allclose(got, expected, rtol=1e-12)
    parts = result.prior + result.reconstruction + result.transitions.sum()
    np.testing.assert_allclose(result.total, parts, rtol=1e-12)
    np.testing.assert_allclose(result.bits_per_dim(2), parts / (2 * np.log(2)), rtol=1e-12)


def test_the_network_is_asked_once_at_every_level():
    seen = []

    def predict(x, t):
        jax.debug.callback(lambda t: seen.append(round(float(t) * 12)), t)
        return some_net()(x, t)

    bound(jax.random.key(0), ladder(), predict, jnp.float32(X_0), decoder=gaussian)
    jax.effects_barrier()
    assert sorted(seen) == list(range(1, 13))


@pytest.mark.parametrize(("share", "kind"), [(0.0, "small"), (1.0, "large")])
def test_a_learned_variance_at_either_end_is_the_small_or_the_large(share, kind, x64):
    for level in range(1, 12):
        learned, fixed = (
            term(some_net(share=share), level, "learned"),
            term(some_net(), level, kind),
        )
        np.testing.assert_allclose(learned, fixed, rtol=1e-10)


def test_a_learned_variance_in_the_middle_is_the_geometric_mean(x64):
    level, predict = 5, some_net("x0", share=0.5)
    v_p = np.sqrt(SMALL[level] * BETAS[level])
    same = jnp.full(2, -0.3)  # a network that is right, but for the variance
    right = lambda x, t: predict(x, t)._replace(x0=same)
    got = term(right, level, "learned", x_0=same)
    expected = np.log(v_p / SMALL[level]) + SMALL[level] / v_p - 1.0  # of two dimensions
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(
    ("decoder", "variance", "share", "expected"),
    [
        # Ho et al. 2020, in their code: that of the second step, whatever the others have.
        (discretized_gaussian(), "small", None, SMALL[1]),
        (discretized_gaussian(), "large", None, SMALL[1]),
        (gaussian, "small", None, BETAS[0]),
        (gaussian, "large", None, BETAS[0]),
        (gaussian, "learned", 0.0, SMALL[1]),
        (gaussian, "learned", 1.0, BETAS[0]),
    ],
)
def test_the_last_step_has_the_variance_that_it_says(decoder, variance, share, expected, x64):
    predict = some_net(share=share)
    mean = ask(ladder(), predict, X_0, EPS, 0).x0
    got = term(predict, 0, variance, decoder)
    np.testing.assert_allclose(got, -decoder.log_prob(X_0, mean, np.log(expected)), rtol=1e-10)


def test_the_gaussian_decoder_is_a_density(x64):
    expected = norm([0.1, 0.4], 0.3).logpdf(X_0).sum()
    got = gaussian.log_prob(X_0, np.array([0.1, 0.4]), np.log(0.09))
    np.testing.assert_allclose(got, expected, rtol=1e-10)


@pytest.mark.parametrize(("low", "high", "gray_levels"), [(-1.0, 1.0, 256), (0.0, 1.0, 32)])
def test_the_gray_levels_have_the_mass_of_their_bins_and_one_together(low, high, gray_levels, x64):
    """Ho et al. 2020, equation 13: borders half-way between the levels, the ends open."""
    decoder, x = discretized_gaussian(low, high, gray_levels), np.linspace(low, high, gray_levels)
    borders = np.concatenate([[-np.inf], (x[1:] + x[:-1]) / 2, [np.inf]])
    for mean, std in ((0.3, 0.1), (low - 0.2, 0.05), (high, 1e-3), (high + 3.0, 1.0)):
        log_prob = jax.vmap(decoder.log_prob, (0, None, None))(x, mean, 2 * np.log(std))
        np.testing.assert_allclose(np.exp(log_prob).sum(), 1.0, rtol=1e-9)
        expected = np.diff(norm(mean, std).cdf(borders))
        np.testing.assert_allclose(np.exp(log_prob), expected, atol=1e-12)


def test_a_gray_level_far_from_the_mean_has_a_finite_mass_and_slope():
    """float32, where Φ itself is 0 or 1 from 6 deviations on."""
    log_prob = lambda x, mean: discretized_gaussian().log_prob(x, mean, 2 * np.log(0.01))
    for mean in (-1.0, 0.0, 1.0):
        x = jnp.linspace(-1.0, 1.0, 256)
        value, slope = jax.vmap(jax.value_and_grad(log_prob, 1), (0, None))(x, mean)
        assert np.all(np.isfinite(value)) and np.all(np.isfinite(slope))
        # the near border of the bin decides: -z²/2 at z deviations from the mean
        z = np.maximum(np.abs(x - mean) - 1 / 255, 0) / 0.01
        far = z > 10
        np.testing.assert_allclose(value[far], -0.5 * z[far] ** 2, rtol=0.1)


def gaps(levels, variance, n):
    """The bound at the exact denoiser less the exact -log p(x_0), in nats, of n draws.

    Less ½(|ε|² - D), ε the last step's noise, whose mean is 0: most of what is random in L_0.
    """
    process, p = ddpm(levels), mixture()
    predict = exact(process, p)

    def one(key):
        data_key, key = jax.random.split(key)
        x_0 = p.sample(data_key)
        result = bound(key, process, predict, x_0, variance=variance, decoder=gaussian)
        eps = jax.random.normal(jax.random.fold_in(key, 0), x_0.shape)
        return result.total + p.log_prob(x_0) - 0.5 * (jnp.sum(eps**2) - x_0.size)

    return np.asarray(draws(one, n), np.float64)


def test_the_bound_of_the_exact_denoiser_falls_to_the_exact_likelihood():
    """Never below it, and with as many steps as the gap is small: it falls by 4 for 4 times."""
    mean, error = np.zeros(3), np.zeros(3)
    for i, levels in enumerate((25, 100, 400)):
        gap = gaps(levels, "large", 20_000)
        mean[i], error[i] = gap.mean(), gap.std() / np.sqrt(len(gap))
    assert np.all(mean > -3 * error)
    assert 2.5 < mean[0] / mean[1] < 6.5
    assert abs(mean[2]) < mean[1] / 4 + 3 * error[2] and mean[2] < 0.04


def test_the_small_variance_costs_more_and_never_less_than_nothing():
    gap, large = gaps(25, "small", 4_000), gaps(25, "large", 4_000)
    assert gap.mean() > large.mean() + 1.0 > 1.0


def pixels(key):
    """Two gray levels of 256, as numbers in [-1, 1]."""
    return jnp.round(255 * jax.random.beta(key, 2.0, 5.0, (2,))) / 127.5 - 1.0


@pytest.mark.parametrize(("decoder", "share"), [("discretized", None), ("gaussian", 0.3)])
def test_the_loss_is_the_bound_on_average(decoder, share):
    """In nats a dimension, over the level and the noise."""
    process, predict = ladder(), some_net("x0", share)
    variance = "small" if share is None else "learned"
    loss = variational(process, variance=variance, decoder=decoder)
    whole = {"discretized": discretized_gaussian(), "gaussian": gaussian}[decoder]
    u = (jnp.arange(12) + 0.5) / 12

    def one(key):
        data_key, key = jax.random.split(key)
        x_0 = pixels(data_key)
        result = bound(key, process, predict, x_0, variance=variance, decoder=whole)
        told = jax.vmap(lambda key, u: loss(key, predict, x_0, u))(jax.random.split(key, 12), u)
        return 2 * told.mean() - result.total, 2 * loss(key, predict, x_0) - result.total

    for gap in draws(one, 20_000):
        gap = np.asarray(gap, np.float64)
        assert abs(gap.mean()) < 4 * gap.std() / np.sqrt(len(gap))


def test_in_the_hybrid_loss_the_bound_moves_the_variance_and_not_the_mean(x64):
    """Nichol & Dhariwal 2021, section 3.1: the mean's gradient is L_simple's alone."""
    process, x_0, weight, key = ladder(), X_0, 0.37, jax.random.key(2)

    def model(w):
        def predict(x, t):
            prediction = read("eps", w[0] * jnp.sin(2.0 * x) + t, process, x, t)
            return prediction._replace(variance=jnp.full(2, w[1]))

        return predict

    both = hybrid(process, vlb_weight=weight, decoder="gaussian")
    vlb = variational(process, variance="learned", decoder="gaussian")
    simple = denoising(process, law="ladder", view="eps")
    gradients = jax.jit(
        jax.jacrev(lambda w, u: jnp.stack([f(key, model(w), x_0, u) for f in (both, vlb, simple)]))
    )
    for u in (0.01, 0.4, 0.99):  # level 0 is the decoder's
        got, bound_s, simple_s = gradients(jnp.array([0.8, 0.4]), u)
        np.testing.assert_allclose(got[0], simple_s[0], rtol=1e-8)
        np.testing.assert_allclose(got[1], weight * bound_s[1] / np.log(2), rtol=1e-8)
        assert abs(bound_s[1]) > 1e-2 and abs(bound_s[0]) > 1e-2


@pytest.mark.parametrize("decoder", ["discretized", "gaussian"])
def test_every_level_has_a_finite_gradient_in_float32(decoder):
    process = make_process("ddpm")

    def one(w, u):
        predict = lambda x, t: read("eps", w[0] * x, process, x, t)._replace(variance=w[1] * x)
        return hybrid(process, decoder=decoder)(jax.random.key(0), predict, jnp.float32(X_0), u)

    grad = jax.jit(jax.vmap(jax.grad(one), (None, 0)))(
        jnp.array([0.5, 0.2]), jnp.linspace(0, 1, 101)
    )
    assert np.all(np.isfinite(grad))


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda p: variational(make_process("vp")), "needs a process with a ladder"),
        (lambda p: variational(Tabulated.from_sigmas([1.0])), "with 1 levels"),
        (lambda p: variational(p, variance="analytic"), "unknown loss.variance 'analytic'"),
        (lambda p: variational(p, decoder="bytes"), "unknown loss.decoder 'bytes'"),
        (lambda p: hybrid(p, decoder="bytes"), "unknown loss.decoder 'bytes'"),
        (lambda p: hybrid(p, vlb_weight=0.0), "loss.vlb_weight must be positive, got 0.0"),
        (
            lambda p: run_hybrid(p),
            "learned_variance = True",
        ),
        (lambda p: run_bound(p, variance="learned"), "learned_variance = True"),
        (lambda p: run_bound(p, variance="mid"), "unknown variance 'mid'"),
        (lambda p: run_bound(p, variance="analytic"), "needs the mean of `eps_errors`"),
        (lambda p: run_bound(p, errors=np.ones(5)), r"expected errors \[12\], got shape \(5,\)"),
        (lambda p: discretized_gaussian(1.0, -1.0), "low = 1.0 and high = -1.0"),
        (lambda p: discretized_gaussian(gray_levels=1), "gray_levels must be at least 2, got 1"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(call, words):
    with pytest.raises(UserError, match=words):
        call(ladder())


def run_hybrid(process):
    return hybrid(process)(jax.random.key(0), some_net(), jnp.float32(X_0))


def run_bound(process, **options):
    x_0 = jnp.float32(X_0)
    return bound(jax.random.key(0), process, some_net(), x_0, decoder=gaussian, **options)


@pytest.mark.parametrize(
    ("module", "shape"),
    [
        (MLP(width=16, depth=1, outputs=2), (3,)),
        (UNet(features=8, multipliers=(1,), blocks=1, attention=(), outputs=2), (8, 8, 3)),
    ],
)
def test_a_network_with_two_outputs_tells_a_mean_and_a_variance(module, shape):
    params = init_params(module, jax.random.key(0), shape)
    params = jax.tree.map(lambda p: p + 0.05, params)
    net = jax.jit(as_net(module, params))
    x = jax.random.normal(jax.random.key(1), shape)
    prediction = make_predict(net, ladder(), Parameterization(learned_variance=True))(x, 0.5)
    raw = net(x, 999.0 * 0.5)
    assert raw.shape == (*shape[:-1], 2 * shape[-1])
    assert prediction.eps.shape == prediction.variance.shape == shape
    np.testing.assert_allclose(prediction.variance, (raw[..., shape[-1] :] + 1) / 2, rtol=1e-4)


LEARNED = dict(
    process=dict(name="ddpm", beta_min=0.01, beta_max=0.3, levels=12),
    parameterization=dict(learned_variance=True),
    model=dict(outputs=2),
    loss=dict(name="hybrid", decoder="gaussian"),
)


IMAGES = dict(
    data=dict(name="digits"),
    model=dict(name="unet", features=4, multipliers=(1,), blocks=1, attention=(), outputs=2),
)


def test_a_config_trains_and_samples_learned_variances(tmp_path):
    sampler = dict(name="ancestral", steps=4, grid="ladder", variance="learned")
    config = write_config(tmp_path / "c.py", tiny_config(**LEARNED, sampler=sampler))
    assert main(["launch.py", f"--config={config}", f"--workdir={tmp_path / 'run'}"]) == 0
    assert np.all(np.isfinite(np.load(tmp_path / "run" / "samples.npz")["arr_0"]))


@pytest.mark.parametrize(
    "changes",
    [
        dict(loss=dict(name="variational", decoder="gaussian", variance="learned")),
        IMAGES | dict(loss=dict(name="variational", variance="learned")),
        IMAGES | dict(loss=dict(name="hybrid")),
    ],
)
def test_a_config_has_a_bound_for_points_and_for_images(changes):
    """At first the network says nothing, so the bound is some bits a dimension, but a number."""
    experiment = build(tiny_config(**LEARNED | changes))
    data = experiment.data
    params = init_params(experiment.module, jax.random.key(0), data.shape)
    x_0 = experiment.encoding.encode(jax.random.key(1), jnp.asarray(data.examples[0]))

    def one(key):
        return experiment.loss(key, experiment.predict(as_net(experiment.module, params)), x_0)

    assert np.all(np.isfinite(draws(one, 20)))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (dict(model=dict(outputs=1)), "needs a network with 4 outputs .* got 2; use .*outputs = 2"),
        (
            dict(parameterization=dict(learned_variance=False), loss=dict(name="denoising")),
            "learned_variance = False needs a network with 2 outputs .* got 4",
        ),
        (
            dict(parameterization=dict(learned_variance=False), model=dict(outputs=1)),
            "'hybrid' trains the variances",
        ),
        (dict(loss=dict(name="denoising")), "needs a loss that trains the variances"),
        (
            dict(
                parameterization=dict(learned_variance=False),
                model=dict(outputs=1),
                loss=dict(name="denoising"),
                sampler=dict(variance="learned"),
            ),
            "sampler.variance = 'learned' needs",
        ),
        (dict(loss=dict(name="hybrid")), "the data are points; use 'gaussian'"),
        (dict(model=dict(outputs=0)), "model.outputs must be at least 1, got 0"),
    ],
)
def test_a_variance_that_nobody_learns_or_tells_is_refused(changes, words):
    with pytest.raises(UserError, match=words):
        build(tiny_config(**LEARNED | changes))


@pytest.mark.parametrize("option", ["centered", "dequantize"])
def test_gray_levels_that_are_elsewhere_than_the_decoder_s_are_refused(option):
    data = {"name": "digits", option: option == "dequantize"}
    with pytest.raises(UserError, match=f"data.{option} = .* does not fit config.loss.decoder"):
        build(tiny_config(**LEARNED | IMAGES | {"data": data, "loss": dict(name="hybrid")}))
