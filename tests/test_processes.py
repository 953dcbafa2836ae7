"""Process algebra: every process, against closed forms, conditioned Gaussians and the papers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PROCESS_EXAMPLES, make_process, times

from score_jax.errors import UserError
from score_jax.processes import (
    PROCESSES,
    VE,
    VP,
    Tabulated,
    diffusion2,
    drift,
    posterior,
    sample_prior,
    transition,
)

close = np.testing.assert_allclose


def test_every_process_has_an_example():
    assert set(PROCESS_EXAMPLES) == set(PROCESSES)


def test_signal_to_noise_falls_with_time(process, x64):
    logsnr = jax.vmap(process.logsnr)(jnp.linspace(0.001, 1.0, 500))
    assert np.all(np.diff(logsnr) < 0)


def test_time_of_logsnr_inverts_logsnr(process, x64):
    t = jnp.linspace(0.0005, 1.0, 301)
    close(jax.vmap(process.time_of_logsnr)(jax.vmap(process.logsnr)(t)), t, rtol=1e-9)


def test_transitions_compose(process, x64):
    """q(x_t | x_r) is q(x_t | x_s) after q(x_s | x_r)."""
    r, s, t = 0.2, 0.5, 0.83
    (a_sr, b_sr), (a_ts, b_ts) = transition(process, r, s), transition(process, s, t)
    a_tr, b_tr = transition(process, r, t)
    close(a_ts * a_sr, a_tr, rtol=1e-12)
    close(jnp.hypot(a_ts * b_sr, b_ts), b_tr, rtol=1e-12)


def test_transition_from_the_marginal_gives_the_marginal(process, x64):
    for s, t in ((0.1, 0.2), (0.3, 0.9), (0.999, 1.0)):
        a, b = transition(process, s, t)
        close(a * process.alpha(s), process.alpha(t), rtol=1e-12)
        close(jnp.hypot(a * process.sigma(s), b), process.sigma(t), rtol=1e-12)


def test_posterior_is_the_joint_gaussian_conditioned(process, x64):
    """Mean and variance of x_s given x_t, from the joint covariance of (x_s, x_t) given x_0."""
    s, t, x_0, x_t = 0.4, 0.7, 1.3, -0.6
    step, _ = transition(process, s, t)
    var_s, var_t = process.sigma(s) ** 2, process.sigma(t) ** 2
    cov = step * var_s
    mean = process.alpha(s) * x_0 + cov / var_t * (x_t - process.alpha(t) * x_0)
    a, b, c = posterior(process, s, t)
    close(a * x_t + b * x_0, mean, rtol=1e-10)
    close(c**2, var_s - cov**2 / var_t, rtol=1e-10)


def test_drift_and_diffusion_carry_the_marginals(process, x64):
    """One Euler-Maruyama step of size h from the marginal gives the next one's moments to O(h²)."""
    t = 0.4321  # inside an interval of every ladder
    errors = []
    for h in (1e-4, 1e-5):
        growth = 1.0 + h * drift(process, jnp.array(1.0), t)
        variance = (growth * process.sigma(t)) ** 2 + h * diffusion2(process, t)
        errors.append(
            abs(growth * process.alpha(t) / process.alpha(t + h) - 1)
            + abs(variance / process.sigma(t + h) ** 2 - 1)
        )
    assert errors[0] < 1e-4
    assert errors[1] < errors[0] / 50


def test_vp_has_the_published_drift_and_diffusion(x64):
    """Song et al. 2021, equation 11: f = -β(t) x/2, g² = β(t)."""
    process = VP(beta_min=0.1, beta_max=20.0)
    for t in times():
        beta = 0.1 + t * 19.9
        close(drift(process, jnp.array(1.7), t), -0.5 * beta * 1.7, rtol=1e-12)
        close(diffusion2(process, t), beta, rtol=1e-10)


def test_ve_has_the_published_diffusion_and_no_drift(x64):
    """Song et al. 2021, appendix C: g = σ(t) √(2 log σ_max/σ_min)."""
    process = VE(sigma_min=0.01, sigma_max=50.0)
    for t in times():
        close(diffusion2(process, t), process.sigma(t) ** 2 * 2 * np.log(5000.0), rtol=1e-12)
        assert drift(process, jnp.array(1.7), t) == 0


def test_vp_keeps_its_precision_near_clean_data_in_float32():
    """At t = 1e-5 the published 1 - exp is off by half a percent of σ; expm1 is not."""
    t = np.float32(1e-5)
    exact = np.sqrt(-np.expm1(-(0.1 * 1e-5 + 0.5 * 19.9 * 1e-10)))
    close(VP().sigma(t), exact, rtol=1e-6)


def test_ddpm_ladder_reproduces_the_formulas_of_ho_et_al(x64):
    """Equations 4, 6 and 7 of arXiv 2006.11239, written there in β_t, α_t and ᾱ_t."""
    betas = np.linspace(1e-4, 0.02, 1000)
    bar = np.cumprod(1.0 - betas)
    process = make_process("ddpm")
    t = jnp.arange(1, 1001) / 1000
    close(jax.vmap(process.alpha)(t), np.sqrt(bar), rtol=1e-12)
    close(jax.vmap(process.sigma)(t), np.sqrt(1.0 - bar), rtol=1e-12)

    step, noise = jax.vmap(lambda s, t: transition(process, s, t))(t[:-1], t[1:])
    close(step, np.sqrt(1.0 - betas[1:]), rtol=1e-12)
    close(noise**2, betas[1:], rtol=1e-10)

    a, b, c = jax.vmap(lambda s, t: posterior(process, s, t))(t[:-1], t[1:])
    close(a, np.sqrt(1 - betas[1:]) * (1 - bar[:-1]) / (1 - bar[1:]), rtol=1e-11)
    close(b, np.sqrt(bar[:-1]) * betas[1:] / (1 - bar[1:]), rtol=1e-10)
    close(c**2, (1 - bar[:-1]) / (1 - bar[1:]) * betas[1:], rtol=1e-10)


def test_ncsn_ladder_is_geometric(x64):
    """Song & Ermon 2019: L = 10, σ from 1 to 0.01 in equal ratios, clean data at t = 0."""
    process = PROCESSES["ncsn"](sigma_min=0.01, sigma_max=1.0, levels=10)
    sigma = jax.vmap(process.sigma)(jnp.arange(11) / 10)
    close(sigma[1:], 0.01 * 100 ** (np.arange(10) / 9), rtol=1e-12)
    assert sigma[0] == 0 and process.alpha(0.35) == 1


def test_a_ladder_is_continuous_between_its_levels(x64):
    for name in ("ncsn", "ddpm"):
        process = make_process(name)
        knots = jnp.arange(1, process.levels) / process.levels
        below, above = (jax.vmap(process.sigma)(knots + d) for d in (-1e-12, 1e-12))
        close(below, above, rtol=1e-8)


def test_the_prior_has_the_standard_deviation_of_the_last_level(process):
    """The classic slip is a VE prior of standard deviation 1."""
    x = sample_prior(jax.random.key(0), process, (20_000,))
    close(x.std(), process.sigma(1.0), rtol=4 / np.sqrt(2 * 20_000))


@pytest.mark.parametrize(
    ("make", "names"),
    [
        (lambda: VE(sigma_min=2.0, sigma_max=1.0), ["sigma_min", "2.0", "sigma_max", "1.0"]),
        (lambda: VP(beta_min=0.0, beta_max=1.0), ["beta_min", "0.0", "beta_max", "1.0"]),
        (lambda: PROCESSES["ncsn"](sigma_min=0.1, sigma_max=1.0, levels=1), ["levels", "1"]),
        (lambda: PROCESSES["ddpm"](beta_min=1e-4, beta_max=0.02, levels=0), ["levels", "0"]),
        (lambda: Tabulated.from_betas([0.1, 1.0]), ["beta", "1.0"]),
        (lambda: Tabulated.from_sigmas([0.2, 0.1]), ["increasing", "0.2"]),
        (lambda: Tabulated.from_sigmas([]), ["at least one level"]),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make, names):
    with pytest.raises(UserError) as error:
        make()
    assert all(name in str(error.value) for name in names)
