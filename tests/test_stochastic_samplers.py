"""Every stochastic sampler draws from the law it promises, which on a mixture is known exactly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import PROCESS_EXAMPLES, make_process, mixture
from scipy.stats import chi2
from test_samplers import OPTIONS, chains

from score_jax.densities import GaussianMixture
from score_jax.errors import UserError
from score_jax.predictions import exact, from_energy, from_score
from score_jax.processes import linear_betas
from score_jax.samplers import SAMPLERS, base
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.langevin import langevin
from score_jax.samplers.mala import _lobatto, mala
from score_jax.samplers.sde import (
    CORRECTORS,
    DAMPINGS,
    PREDICTORS,
    corrected,
    euler_maruyama,
    predictor_corrector,
    reverse_diffusion,
)
from score_jax.times import on_host


def chains_from_the_exact_start(process, sampler, density, n):
    """From the law of x_t at the sampler's start on, not from the prior."""
    alpha, sigma = process.alpha(sampler.start), process.sigma(sampler.start)
    return chains(exact(process, density), sampler, density.noised(alpha, sigma).sample, n)


def statistics(x, density):
    """What vanishes on average over the density: mean, covariance and modes' weights, a row each.

    The weights but for one: E p(k | x) = w_k, whether or not the modes overlap.
    """
    centered = x - np.asarray(density.mean())
    i, j = np.triu_indices(x.shape[1])
    products = centered[:, i] * centered[:, j] - np.asarray(density.covariance())[i, j]
    modes = jax.jit(jax.vmap(lambda x: jax.nn.softmax(density.component_log_probs(x))))(x)
    modes = np.asarray(modes - density.weights)[:, 1:]
    return np.concatenate([centered, products, modes], 1).astype(np.float64)


def distance(x, density):
    """n |mean|² of the statistics, in units of their covariance, and what it stays below.

    Of draws from the density it has the χ² law; the bound is exceeded as seldom as one number
    leaves three standard errors.
    """
    values = statistics(x, density)
    mean = values.mean(0)
    squared = len(x) * mean @ np.linalg.solve(np.atleast_2d(np.cov(values.T)), mean)
    return squared, chi2.ppf(0.9973, len(mean))


# ------------------------------------------------------------------ the law on the mixture

# In 400 steps they miss a normal's variance by 1.4% at most; that is one standard error of N.
N, STEPS = 10_000, 400
NOISY, CLEAN = -4.0, 4.6  # from σ/α = 7.4 to 0.1, in equal steps of the log SNR
CASES = [  # (sampler, its options, the processes)
    ("ancestral", dict(variance="small"), ("ncsn",)),
    ("ancestral", dict(variance="large"), ("edm", "ddpm")),
    ("ddim", dict(eta=0.5), ("flow",)),
    ("euler_maruyama", dict(), ("vp", "subvp", "edm", "flow", "ncsn")),
    ("reverse_diffusion", dict(), ("ve", "ddpm", "flow")),
    ("predictor_corrector", dict(predictor="ancestral", corrector="ald"), ("vp",)),
    ("predictor_corrector", dict(predictor="ddim", corrector="ald"), ("flow",)),
    ("predictor_corrector", dict(predictor="euler_maruyama", corrector="ald"), ("edm",)),
    ("predictor_corrector", dict(corrector="ald"), ("vp",)),
    ("predictor_corrector", dict(corrector="ald", first="predictor"), ("ve",)),
    ("edm_stochastic", dict(steps=40, churn=20.0, s_noise=1.0), ("edm", "flow")),
    ("dpm_solver_pp_2m", dict(steps=40, eta=1.0), ("vp",)),
    ("dpm_solver_pp_3m", dict(steps=40, eta=1.0), ("ve",)),
]
STOCHASTIC = {name for name, *_ in CASES}


def time_of(process, logsnr):
    return float(on_host(process.time_of_logsnr, np.array([logsnr]))[0])


def make_sampler(name, process, **options):
    """Between NOISY and CLEAN, without the denoising at the end."""
    start, end = time_of(process, NOISY), time_of(process, CLEAN)
    ours = dict(steps=STEPS, grid="logsnr", start=start, end=end, denoise=False)
    return SAMPLERS[name](process, **(ours | options))


def at_the_end(process, density):
    end = time_of(process, CLEAN)
    return density.noised(process.alpha(end), process.sigma(end))


@pytest.mark.parametrize(
    ("name", "options", "process"),
    [(name, options, process) for name, options, names in CASES for process in names],
)
def test_a_sampler_draws_from_the_mixture_at_its_end(name, options, process):
    process = make_process(process)
    x = chains_from_the_exact_start(process, make_sampler(name, process, **options), mixture(), N)
    found, bound = distance(x, at_the_end(process, mixture()))
    assert found < bound


def test_every_sampler_that_draws_has_a_case():
    at_one_level = {"langevin", "annealed_langevin", "mala"}  # their laws: below, test_samplers
    process = make_process("vp")
    predict = exact(process, mixture())
    for name in sorted(set(SAMPLERS) - STOCHASTIC - at_one_level):
        sampler = SAMPLERS[name](process, **OPTIONS[name])
        row = [c[0] for c in sampler.schedule]
        step = lambda key, state, sampler=sampler, row=row: sampler.step(key, predict, state, *row)
        program = jax.make_jaxpr(step)(jax.random.key(0), sampler.init(jnp.ones(2)))
        assert "random_bits" not in str(program), name


# -------------------------------------------------------------------------- reductions


def run_from(x, sampler, predict, key):
    """x at the sampler's start, run to its end: `base.advance`, not compiled."""
    state = sampler.init(x)
    for i, row in enumerate(zip(*sampler.schedule)):
        state = sampler.step(jax.random.fold_in(key, i), predict, state, *row)
    return sampler.finish(predict, state)


def runs(process, sampler, predict=None, n=3):
    """n runs with keys of their own from fixed points, as far out as the process goes."""
    predict = predict or exact(process, mixture())
    alpha, sigma = process.alpha(sampler.start), process.sigma(sampler.start)
    x = np.hypot(alpha, sigma) * np.random.default_rng(0).normal(size=(n, 2))
    one = lambda x, key: run_from(x, sampler, predict, key)
    return np.asarray(jax.vmap(one)(x, jax.random.split(jax.random.key(7), n)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("ancestral", dict(variance="small")),
        ("ddim", dict(eta=0.5)),
        ("dpm_solver_pp_2m", dict(eta=1.0)),
        ("dpm_solver_pp_3m", dict(eta=1.0)),
    ],
)
def test_at_given_log_snrs_every_process_is_the_same_up_to_a_scale(x64, name, options):
    """x_t/α_t knows σ/α only. So the law above, tested on one process, holds on all of them."""

    def scaled(process):
        sampler = make_sampler(name, process, **(options | dict(steps=6)))
        return runs(process, sampler) / process.alpha(time_of(process, CLEAN))

    expected = scaled(make_process("ve"))
    for process in sorted(PROCESS_EXAMPLES):
        got = scaled(make_process(process))
        np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-8, err_msg=process)


@pytest.mark.parametrize("process", ["edm", "ncsn", "ncsnv2"])
def test_reverse_diffusion_does_not_know_how_time_is_counted(x64, process):
    through = lambda process: runs(process, make_sampler("reverse_diffusion", process, steps=6))
    expected = through(make_process("ve"))
    np.testing.assert_allclose(through(make_process(process)), expected, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("process", ["vp", "ve", "flow", "ddpm"])
def test_ddim_with_eta_1_is_the_ancestral_chain(x64, process):
    process, options = make_process(process), dict(steps=6, end=0.01)
    expected = runs(process, ancestral(process, variance="small", **options))
    got = runs(process, ddim(process, eta=1.0, **options))
    np.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("predictor", sorted(PREDICTORS))
def test_a_predictor_without_corrections_is_the_predictor(predictor):
    process, options = make_process("vp"), dict(steps=6)
    got = predictor_corrector(process, predictor=predictor, corrections=0, **options)
    expected = runs(process, PREDICTORS[predictor](process, **options))
    assert np.array_equal(runs(process, got), expected)


@pytest.mark.parametrize("process", ["vp", "ve", "subvp", "cosine", "edm", "flow", "ncsn", "ddpm"])
def test_euler_maruyama_becomes_reverse_diffusion_as_steps_grow(process):
    """x_s = a x_t + b² score + b z in both; a and b² differ by O(h²), of their sizes 1 and h."""
    process = make_process(process)

    def differences(steps):  # through whole intervals of both ladders
        options = dict(steps=steps, start=0.8, end=0.2)
        one, other = (make(process, **options).schedule for make in makers)
        return [np.abs(x - y).max() for x, y in zip(one[2:4], other[2:4])]

    makers = (euler_maruyama, reverse_diffusion)
    for coarse, fine in zip(differences(600), differences(1200)):
        assert fine == coarse == 0 or 0.23 < fine / coarse < 0.27


def test_euler_maruyama_takes_a_ladders_slopes_below_its_levels(x64):
    """Between levels log(σ/α)² runs linearly, so that with Δ its step from one level to the next
    h g² = σ² Δ and, where α² + σ² = 1, h f = -σ² Δ/2."""
    process = linear_betas(beta_min=1e-4, beta_max=0.02, levels=1000)
    sampler = euler_maruyama(process, steps=1000, grid="ladder", end=5e-4)
    _, _, a, b2, _ = (row[:-1][::-1] for row in sampler.schedule)  # levels 1 .. 999
    ratio2 = process.ratios**2
    sigma2, delta = (ratio2 / (1 + ratio2))[1:], np.diff(np.log(ratio2))
    np.testing.assert_allclose(b2, sigma2 * delta, rtol=1e-5)
    np.testing.assert_allclose(a - 1, 0.5 * sigma2 * delta, rtol=1e-5)


def test_reverse_diffusion_is_song_et_als_on_their_two_ladders():
    """x + (σ_i² - σ_{i-1}²) s + √ z on NCSN's, (2 - √(1 - β_i)) x + β_i s + √β_i z on DDPM's:
    Song et al. 2021, appendix E, equations 47 and 48."""
    ncsn, ddpm = make_process("ncsn"), make_process("ddpm")
    _, _, a, b2, b = reverse_diffusion(ncsn, steps=25, grid="ladder").schedule
    np.testing.assert_allclose(a, 1.0, rtol=1e-12)
    np.testing.assert_allclose(b2, np.diff(ncsn.ratios**2)[::-1], rtol=1e-9)
    np.testing.assert_allclose(b**2, b2, rtol=1e-9)
    _, _, a, b2, _ = reverse_diffusion(ddpm, steps=1000, grid="ladder").schedule
    betas = np.linspace(1e-4, 0.02, 1000)[:0:-1]
    np.testing.assert_allclose(a, 2 - np.sqrt(1 - betas), rtol=1e-12)
    np.testing.assert_allclose(b2, betas, rtol=1e-9)


# -------------------------------------------------------------------------- the corrector


def resting(t):
    """A sampler of one step, which stays at t and does nothing."""
    at = np.array([t])
    return base.Sampler((at, at), lambda x: x, lambda key, predict, x, t, s: x, lambda p, x: x, t)


def test_a_correction_leaves_a_variance_v_too_large_by_its_square_over_v():
    """From N(m, v I), v = σ²: δ = 2 (snr σ)² = σ²/2, and the variance grows by δ²/v = σ²/4."""
    process, t, n = make_process("ve"), 0.5, 20_000
    point = GaussianMixture(np.ones(1), np.array([[0.7, -0.3]]), np.zeros(1))
    sampler = corrected(resting(t), process, corrector="ald", corrections=1, snr=0.5)
    x = chains_from_the_exact_start(process, sampler, point, n)
    sigma = float(process.sigma(t))
    assert np.all(abs(x.mean(0) - [0.7, -0.3]) < 3 * sigma * np.sqrt(1.25 / n))
    assert np.all(abs(x.var(0) / sigma**2 - 1.25) < 3 * 1.25 * np.sqrt(2 / n))


def test_alds_step_is_langevins_where_the_data_are_few_of_many_dimensions():
    """2 (snr |z|/|score|)², the norms of one example: images lie near 20 of 3,072 dimensions."""
    process, t, snr, dimensions = make_process("ve"), 0.4, 0.16, 3_072
    std = np.zeros((1, dimensions))
    std[0, :20] = 1.0
    density = GaussianMixture(np.ones(1), np.full((1, dimensions), 0.5), std)
    noised = density.noised(process.alpha(t), process.sigma(t))
    x, z = noised.sample(jax.random.key(0)), jax.random.normal(jax.random.key(1), (dimensions,))
    paper = 2 * (snr * np.linalg.norm(z) / np.linalg.norm(noised.score(x))) ** 2
    ald = corrected(resting(t), process, corrector="ald", corrections=1, snr=snr)
    np.testing.assert_allclose(ald.schedule[2][0], paper, rtol=0.1)


def test_a_langevin_correction_is_song_et_al_s_with_the_norms_of_one_example(x64):
    """Algorithm 4: ε = 2 (r |z|/|g|)², x ← x + ε g + √(2ε) z; others' norms do not enter."""
    process, t, snr = make_process("ve"), 0.4, 0.16
    sampler = corrected(resting(t), process, corrector="langevin", corrections=1, snr=snr)
    predict, row = exact(process, mixture()), [c[0] for c in sampler.schedule]
    for seed, x in enumerate(np.array([[0.3, -2.0], [7.0, 1.0]])):
        key = jax.random.key(seed)
        _, correction_key = jax.random.split(key)
        z = np.asarray(jax.random.normal(correction_key, (2,)))
        g = np.asarray(predict(x, t).score)
        epsilon = 2 * (snr * np.linalg.norm(z) / np.linalg.norm(g)) ** 2
        expected = x + epsilon * g + np.sqrt(2 * epsilon) * z
        np.testing.assert_allclose(sampler.step(key, predict, x, *row), expected, rtol=1e-9)


def test_in_two_dimensions_langevins_corrector_is_biased_and_alds_is_not():
    """Known, and said in `corrected`: near a mode |score| is almost 0 and the step huge."""
    process, found = make_process("ve"), {}
    for corrector in CORRECTORS:
        sampler = make_sampler("predictor_corrector", process, corrector=corrector)
        x = chains_from_the_exact_start(process, sampler, mixture(), N)
        found[corrector], bound = distance(x, at_the_end(process, mixture()))
    assert found["ald"] < bound < 10 * bound < found["langevin"]


def test_on_ddpms_ladder_the_corrector_is_damped_by_one_minus_beta():
    """a² of one step, as in the released code: not of all steps from the data, which is 4e-5."""
    process = make_process("ddpm")
    t, _, delta, *_ = predictor_corrector(
        process, corrector="ald", steps=1000, grid="ladder", snr=0.1
    ).schedule
    betas = np.linspace(1e-4, 0.02, 1000)[:0:-1]
    sigma2 = process.ratios[:0:-1] ** 2 / (1 + process.ratios[:0:-1] ** 2)
    np.testing.assert_allclose(delta, 0.02 * (1 - betas) * sigma2, rtol=1e-9)


def test_the_papers_damping_is_the_product_over_all_steps():
    """Algorithm 5: 2 α_i (snr σ)², α_i the product of 1 - β_j, at the noisiest 4e-5."""
    process = make_process("ddpm")
    options = dict(corrector="ald", steps=1000, grid="ladder", snr=0.1, damping="whole")
    _, _, delta, *_ = predictor_corrector(process, **options).schedule
    alpha2 = np.cumprod(1 - np.linspace(1e-4, 0.02, 1000))[:0:-1]
    np.testing.assert_allclose(delta, 0.02 * alpha2 * (1 - alpha2), rtol=1e-9)


@pytest.mark.parametrize("damping", DAMPINGS)
def test_a_predictor_first_is_corrected_where_it_arrives(damping, x64):
    """Algorithms 2 and 3: the step t -> s, then the correction at s with the norms found there."""
    process, density = make_process("ddpm"), mixture()
    predict, key = exact(process, density), jax.random.key(3)
    options = dict(predictor="ddim", steps=4, grid="uniform", end=0.2, snr=0.1, damping=damping)
    plain = PREDICTORS["ddim"](process, steps=4, grid="uniform", end=0.2, denoise=False)
    ours = predictor_corrector(process, first="predictor", denoise=False, **options)
    x, row = np.array([0.4, -1.3]), [c[1] for c in ours.schedule]
    step_key, correction_key = jax.random.split(key)
    arrived = plain.step(step_key, predict, x, *[c[1] for c in plain.schedule])
    z, s = jax.random.normal(correction_key, (2,)), plain.schedule[1]
    g = predict(arrived, s[1]).score
    a = process.alpha(s[1]) / (1.0 if damping == "whole" else process.alpha(s[2]))
    delta = 2 * (a * 0.1) ** 2 * jnp.sum(z**2) / jnp.sum(g**2)
    expected = arrived + delta * g + jnp.sqrt(2 * delta) * z
    np.testing.assert_allclose(ours.step(key, predict, x, *row), expected, rtol=1e-9)


def test_each_correction_costs_one_evaluation():
    process = make_process("ve")
    sampler = predictor_corrector(process, steps=5, corrections=3)
    predict = exact(process, mixture())
    draw = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    _, evaluations = jax.jit(draw)(jax.random.key(0))
    assert evaluations == 5 * (1 + 3) + 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (dict(predictor="heun"), "unknown sampler.predictor 'heun'"),
        (dict(corrections=-1), "sampler.corrections must be at least 0, got -1"),
        (dict(snr=0.0), "sampler.snr must be positive, got 0.0"),
        (dict(corrector="lang"), "unknown sampler.corrector 'lang'"),
    ],
)
def test_a_corrector_that_cannot_be_is_refused(options, words):
    with pytest.raises(UserError, match=words):
        predictor_corrector(make_process("ve"), **options)


# ------------------------------------------------------------------------------- MALA

MEAN, STD = 1.5, 0.7
LEVEL = 0.5  # the time at which the chains below stay


def normal_score(process):
    """N(MEAN, STD²), at every time."""
    return from_score(process, lambda x, t: (MEAN - x) / STD**2)


def normal_energy(process):
    return from_energy(process, lambda x, t: jnp.sum((x - MEAN) ** 2) / (2 * STD**2))


@pytest.mark.parametrize("make_predict", [normal_score, normal_energy])
def test_mala_is_exact_at_a_step_at_which_langevin_is_not(make_predict):
    """On N(m, s²) Langevin's variance tends to s²/(1 - ε/4s²), 20% too large here."""
    process, n, step_size = make_process("ve"), 20_000, 4 * STD**2 * (1 - 1 / 1.2)
    sampler = mala(process, steps=80, step_size=step_size, end=LEVEL)
    x = chains(make_predict(process), sampler, lambda key: jnp.full(1, 4.0), n)
    assert abs(x.mean() - MEAN) < 3 * STD / np.sqrt(n)
    assert abs(x.var() / STD**2 - 1) < 3 * np.sqrt(2 / n)


def overlapping():
    """Two modes on a line between which a chain goes back and forth."""
    return GaussianMixture(np.array([0.7, 0.3]), np.array([[0.0], [1.6]]), np.array([0.5, 0.35]))


def test_mala_has_the_moments_and_weights_of_two_modes():
    process, density, n = make_process("ve"), overlapping(), 20_000
    predict = from_score(process, lambda x, t: density.score(x))
    start = lambda key: jax.random.uniform(key, (1,), minval=-2.0, maxval=3.0)
    options = dict(steps=150, end=LEVEL, step_size=0.35)
    sampler = mala(process, nodes=3, **options)
    found, bound = distance(chains(predict, sampler, start, n), density)
    assert found < bound
    plain, bound = distance(chains(predict, langevin(process, **options), start, n), density)
    assert plain > 10 * bound  # a step at which a chain is wrong that accepts everything


def test_an_energy_and_its_score_make_the_same_chain(x64):
    """On a normal law the line integral is exact, even by the trapezoidal rule."""
    process = make_process("ve")
    make = lambda nodes: mala(process, steps=15, step_size=0.5, nodes=nodes, end=LEVEL)
    expected = runs(process, make(1), normal_energy(process), n=12)
    for nodes in (0, 3):
        got = runs(process, make(nodes), normal_score(process), n=12)
        np.testing.assert_allclose(got, expected, rtol=1e-9)


@pytest.mark.parametrize("nodes", [0, 1, 3])
def test_the_line_integral_is_exact_to_the_degree_that_is_promised(x64, nodes):
    """For a score of degree 2 nodes + 1, ∫_0^1 s(x + u d) d du is log p(x + d) - log p(x)."""
    points, weights = _lobatto(nodes)
    x, d, power = 0.3, 1.4, 2 * nodes + 2
    slopes = [-((x + u * d) ** (power - 1)) * d for u in (0.0, *points, 1.0)]
    np.testing.assert_allclose(weights @ slopes, (x**power - (x + d) ** power) / power, rtol=1e-12)


def test_with_a_tiny_step_every_proposal_is_accepted():
    process, density = make_process("ve"), overlapping()
    predict = from_score(process, lambda x, t: density.score(x))

    def accepted(step_size):
        sampler = mala(process, steps=2, step_size=step_size, end=LEVEL)
        ends = chains(predict, sampler, lambda key: jnp.full(1, 0.4), 2_000)
        return np.mean(ends != np.float32(0.4))

    assert accepted(1e-4) > 0.999 > 0.98 > accepted(0.5) > 0.3


@pytest.mark.parametrize(
    ("make_predict", "nodes", "each"),
    [(normal_energy, 1, 1), (normal_score, 0, 1), (normal_score, 2, 3)],
)
def test_malas_step_costs_one_evaluation_and_its_nodes(make_predict, nodes, each):
    process = make_process("ve")
    sampler = mala(process, steps=7, nodes=nodes, end=LEVEL, denoise=True)
    predict = make_predict(process)
    draw = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    _, evaluations = jax.jit(draw)(jax.random.key(0))
    assert evaluations == 7 * each + 1


def test_malas_first_step_stays_where_it_is():
    process = make_process("ve")
    sampler = mala(process, steps=1, step_size=0.5, end=LEVEL)
    x = jnp.array([0.4])
    assert run_from(x, sampler, normal_score(process), jax.random.key(0)) == x


def test_mala_refuses_what_cannot_be():
    with pytest.raises(UserError, match="sampler.nodes must be at least 0, got -1"):
        mala(make_process("ve"), nodes=-1, end=LEVEL)
    with pytest.raises(UserError, match="sampler.end = 0.0: there is no noise"):
        mala(make_process("vp"), end=0.0)
