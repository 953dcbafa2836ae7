"""The adaptive sampler against the probability flow's map where it is known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import draws, exact_score, make_process, mixture

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.predictions import from_score
from score_jax.samplers import base
from score_jax.samplers.adaptive import adaptive

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose


def gaussian():
    """One component, off-center and anisotropic."""
    return GaussianMixture(
        np.array([1.0]), np.array([[-1.0, 0.5, 2.0]]), np.array([[0.25, 0.5, 1.5]])
    )


def carried(process, density, sampler, x):
    """(x at the end, evaluations) from x at the start."""
    predict = from_score(process, exact_score(process, density))

    def one(x):
        run = base.Run(sampler.init(x), jnp.zeros((), jnp.int32))
        run = base.advance(jax.random.key(0), sampler, predict, run, 0, sampler.steps)
        return base.finish(sampler, predict, run)

    return jax.jit(jax.vmap(one))(x)


def error_of_a_gaussians_flow(process, **options):
    """The flow of N(m, s²) is affine: (x - α m)/√(α² s² + σ²) is the same at all times."""
    p, sampler = gaussian(), adaptive(process, end=0.05, denoise=False, **options)
    z = jax.random.normal(jax.random.key(1), (20, 3))
    at = lambda t: p.noised(process.alpha(t), process.sigma(t))
    start, end = at(sampler.start), at(0.05)
    x, _ = carried(process, p, sampler, start.means[0] + start.stds[0] * z)
    return float(jnp.abs(x - (end.means[0] + end.stds[0] * z)).max())


def test_a_gaussian_is_carried_along_its_quantiles(process, x64):
    assert error_of_a_gaussians_flow(process) < 5e-4


def test_the_error_follows_the_tolerance_down(x64):
    assert error_of_a_gaussians_flow(make_process("subvp"), rtol=1e-9, atol=1e-9) < 2e-8


@pytest.mark.parametrize("name", ["vp", "edm", "flow"])
def test_samples_have_the_mixtures_law(name):
    """Means and covariances within 4 standard errors, and 0.01 for the end and the prior."""
    process, p = make_process(name), mixture()
    predict, sampler = from_score(process, exact_score(process, p)), adaptive(process)
    x = draws(lambda key: base.sample(key, process, sampler, predict, (2,)), 10_000)
    x = np.asarray(x, np.float64)
    mean, cov = np.asarray(p.mean()), np.asarray(p.covariance())
    assert np.all(np.abs(x.mean(0) - mean) < 4 * np.sqrt(np.diag(cov) / len(x)) + 0.01)
    products = (x - mean)[:, :, None] * (x - mean)[:, None, :]
    slack = 4 * products.std(0) / np.sqrt(len(x)) + 0.01
    assert np.all(np.abs(products.mean(0) - cov) < slack)


def test_the_last_denoising_is_one_evaluation_more_and_gives_x0(x64):
    process, p = make_process("vp"), mixture()
    x = jax.random.normal(jax.random.key(0), (5, 2))
    plain, asked = carried(process, p, adaptive(process, denoise=False), x)
    denoised, asked_more = carried(process, p, adaptive(process), x)
    predict = from_score(process, exact_score(process, p))
    close(denoised, jax.vmap(lambda x: predict(x, 1e-3).x0)(plain), rtol=1e-12)
    np.testing.assert_array_equal(asked_more, asked + 1)


def test_evaluations_are_the_calls_really_made():
    process, p = make_process("vp"), mixture()
    exact, calls = from_score(process, exact_score(process, p)), []

    def predict(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(x, t)

    key = jax.random.key(3)
    sampler = adaptive(process)
    asked = jax.jit(lambda: base.sample_counted(key, process, sampler, predict, (2,)))()[1]
    jax.effects_barrier()
    assert len(calls) == asked and asked > 50


def test_every_sample_takes_its_own_steps(x64):
    process, p = make_process("vp"), mixture()
    x = jax.random.normal(jax.random.key(0), (50, 2))
    _, asked = carried(process, p, adaptive(process), x)
    assert len(set(asked.tolist())) > 1
    for i in (0, 7):
        assert carried(process, p, adaptive(process), x[i : i + 1])[1] == asked[i]


def test_too_few_evaluations_give_nan():
    process = make_process("vp")
    x, asked = carried(process, mixture(), adaptive(process, max_evaluations=20), jnp.ones((1, 2)))
    assert np.isnan(x).all() and asked[0] == 21


@pytest.mark.parametrize("options", [dict(end=0.0), dict(end=1.0), dict(start=0.0), dict(end=-0.1)])
def test_times_without_a_flow_are_refused(options):
    with pytest.raises(UserError, match="end"):
        adaptive(make_process("vp"), **options)
