"""Deterministic samplers: their order, their exact reductions, what does not change them."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import by_hand, mixture

from benchmarks.oracle import Runner, flow, setting, starts
from benchmarks.orders import DETERMINISTIC, FINE, STOCHASTIC, make, rms
from score_jax.errors import UserError
from score_jax.predictions import exact
from score_jax.processes import EDM, PROCESSES, VP, Flow, GaussianProcess
from score_jax.samplers import SAMPLERS, base
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.exponential import basis_integrals, phi
from score_jax.samplers.multistep import adams, deis, dpm_solver_pp_2m, dpm_solver_pp_3m, unipc
from score_jax.samplers.ode import edm_stochastic, euler, heun
from score_jax.times import GRIDS

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose
CHAINS = {"langevin", "mala", "annealed_langevin"}  # at one noise level after another


def test_every_sampler_is_measured():
    """By its order, by its moments (test_stochastic_samplers), or by its tolerance (adaptive)."""
    measured = {case.sampler for case in (*DETERMINISTIC, *STOCHASTIC)}
    assert measured | CHAINS | {"adaptive"} == set(SAMPLERS)


@pytest.fixture(scope="module", params=["vp", "ve", "edm", "flow"])
def problem(request):
    """A process and where its flow carries 32 points, in float64."""
    with jax.enable_x64(True):
        at = setting(request.param)
        return at, flow(at, starts(at, 32))


@pytest.mark.parametrize("case", DETERMINISTIC, ids=[case.name for case in DETERMINISTIC])
def test_a_deterministic_sampler_has_its_theoretical_order(case, problem, x64):
    """And its error is small: a method that converges to something else has a slope too."""
    at, truth = problem
    run = Runner(at, lambda steps: make(at, case, steps), FINE[-1])
    coarse, fine = (rms(run(steps, starts(at, 32))[0], truth) for steps in FINE)
    order = np.log2(coarse / fine)
    assert abs(order - case.order) < 0.15, (order, coarse, fine)
    assert fine < 3.0 * (8.0 / FINE[-1]) ** case.order, fine


@dataclass(frozen=True)
class Warped(GaussianProcess):
    """The same curves, with time counted by another clock: t^power."""

    process: GaussianProcess
    power: float = 1.7

    def alpha(self, t):
        return self.process.alpha(jnp.asarray(t, float) ** self.power)

    def log_alpha(self, t):
        return self.process.log_alpha(jnp.asarray(t, float) ** self.power)

    def sigma(self, t):
        return self.process.sigma(jnp.asarray(t, float) ** self.power)

    def time_of_logsnr(self, logsnr):
        return self.process.time_of_logsnr(logsnr) ** (1 / self.power)


ODE = {case.name: case for case in DETERMINISTIC} | {"adaptive": None}


@pytest.mark.parametrize("process", [VP(), Flow()], ids=["vp", "flow"])
def test_warping_time_changes_no_ode_sampler(process, x64):
    warped, x = Warped(process), jnp.array([0.7, -1.1])
    predicts = {p: jax.jit(exact(p, mixture())) for p in (process, warped)}

    def end_of(case, process, power):
        clock = lambda t: t ** (1 / power)
        ends = dict(start=clock(0.97), end=clock(0.1))
        if case is None:
            sampler = SAMPLERS["adaptive"](process, **ends)
        else:
            options = dict(steps=5, grid="logsnr", **ends, **case.options)
            sampler = SAMPLERS[case.sampler](process, **options)
        state = sampler.init(x)
        for row in zip(*sampler.schedule):
            state = sampler.step(jax.random.key(0), predicts[process], state, *row)
        return sampler.finish(predicts[process], state)

    for name, case in ODE.items():
        close(end_of(case, warped, 1.7), end_of(case, process, 1.0), rtol=1e-8, err_msg=name)


def ends(process, predict, *samplers):
    """Samples of several samplers from the same key."""
    key = jax.random.key(0)
    return [by_hand(key, process, sampler, predict, (2,)) for sampler in samplers]


@pytest.mark.parametrize("name", ["vp", "ve", "edm", "subvp", "cosine"])
def test_reductions_hold_to_rounding(name, x64):
    """What is another sampler in a special case, with the same keys; see `same` below."""
    process, shared = PROCESSES[name](), dict(steps=6, grid="logsnr", start=0.99, end=0.05)
    predict = jax.jit(exact(process, mixture()))
    same = {
        "ddim(1) = ancestral(small)": (
            ddim(process, eta=1.0, **shared),
            ancestral(process, variance="small", **shared),
        ),
        "deis of order 1 = ddim(0)": (deis(process, order=1, **shared), ddim(process, **shared)),
        "churn 0 = heun": (edm_stochastic(process, churn=0.0, **shared), heun(process, **shared)),
        "no level in [s_min, s_max] = heun": (
            edm_stochastic(process, s_min=1e8, s_max=1e9, **shared),
            heun(process, **shared),
        ),
        "dpm_solver_pp_3m = its exact integral, unipc without corrector's help at one step": (
            dpm_solver_pp_3m(process, **shared | dict(steps=1)),
            unipc(process, **shared | dict(steps=1)),
        ),
        "dpm_solver_pp of one step = ddim(0)": (
            dpm_solver_pp_2m(process, **shared | dict(steps=1)),
            ddim(process, **shared | dict(steps=1)),
        ),
        "dpm_solver_pp with eta 1 of one step = ancestral(small)": (
            dpm_solver_pp_2m(process, eta=1.0, **shared | dict(steps=1)),
            ancestral(process, variance="small", **shared | dict(steps=1)),
        ),
    }
    for claim, pair in same.items():
        one, other = ends(process, predict, *pair)
        close(one, other, rtol=1e-9, err_msg=claim)


def test_on_flow_euler_is_a_straight_step_of_the_velocity(x64):
    """x_s = x_t - (t - s) velocity: rectified flow's sampler, from t = 1 where α = 0."""
    process, predict = Flow(), exact(Flow(), mixture())
    sampler = euler(process, steps=4, denoise=False)
    x, t = jnp.array([0.7, -1.1]), 1.0
    state = x
    for row in zip(*sampler.schedule):
        state = sampler.step(jax.random.key(0), predict, state, *row)
        x, t = x - 0.25 * predict(x, t).velocity, t - 0.25
        close(state, x, rtol=1e-12)
    close(sampler.finish(predict, state), x - 0.25 * predict(x, 0.25).velocity, rtol=1e-9)


def test_on_edm_heun_is_karras_et_al_s_algorithm_1(x64):
    """35 evaluations for their 18 steps, each step as they write it in σ."""
    process, p = EDM(), mixture()
    denoised = lambda x, sigma: p.posterior_mean(x, 1.0, sigma)
    sampler = heun(process, steps=17)
    root = 80.0 ** (1 / 7) + np.arange(18) / 17 * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))
    sigma = np.append(root**7, 0.0)
    x = sigma[0] * jnp.array([0.7, -1.1])
    run = base.Run(sampler.init(x), 0)
    predict = exact(process, p)
    got, evaluations = base.finish(
        sampler, predict, base.advance(jax.random.key(0), sampler, predict, run, 0, 17)
    )
    for now, then in zip(sigma[:-1], sigma[1:]):
        d = (x - denoised(x, now)) / now
        foreseen = x + (then - now) * d
        if then > 0:
            d = 0.5 * (d + (foreseen - denoised(foreseen, then)) / then)
        x = x + (then - now) * d
    close(got, x, rtol=1e-9)
    assert evaluations == 35


def lu_3m(h, h_1, h_2, factor):
    """Weights of x0_t, x0_r, x0_q as DPM-Solver++'s code writes them, times `factor` in D2."""
    r_0, r_1 = h_1 / h, h_2 / h
    phi_1 = np.expm1(-h)
    phi_2 = phi_1 / h + 1
    phi_3 = phi_2 / h - 0.5
    d_10 = np.array([1, -1, 0]) / r_0
    d_11 = np.array([0, 1, -1]) / r_1
    d_1 = d_10 + r_0 / (r_0 + r_1) * (d_10 - d_11)
    d_2 = (d_10 - d_11) / (r_0 + r_1)
    return -phi_1 * np.array([1, 0, 0]) + phi_2 * d_1 - factor * phi_3 * d_2


@pytest.mark.parametrize("common", [False, True])
def test_3m_is_the_published_formula_with_a_factor_2_or_without(common, x64):
    """The common form lacks it, and measures second order; the exact integral has it."""
    process = VP()
    sampler = dpm_solver_pp_3m(process, steps=6, grid="karras", end=0.01, common=common)
    t, s, _, w = sampler.schedule
    lam = 0.5 * np.asarray(jax.vmap(process.logsnr)(np.append(t, s[-1:])))
    h = np.diff(lam)
    for i in range(2, 6):
        expected = lu_3m(h[i], h[i - 1], h[i - 2], 1 if common else 2)
        close(w[i] / float(process.alpha(s[i])), expected, rtol=1e-9)


def test_adams_at_equal_angles_has_the_weights_of_adams(x64):
    """3/2, -1/2 foresee and 5/12, 8/12, -1/12 correct: on flow, where v is the answer times 1/n."""
    phi = np.linspace(1.5, 0.3, 7)
    t = np.sin(phi) / (np.sin(phi) + np.cos(phi))  # tan φ = σ/α
    GRIDS["equal"] = lambda process, n, start, end: t
    try:
        ends = dict(start=t[0], end=t[-1], denoise=False)
        sampler = adams(Flow(), steps=6, order=2, grid="equal", **ends)
    finally:
        del GRIDS["equal"]
    *_, after, predictor = sampler.schedule
    n, h = np.hypot(1 - t, t), phi[1] - phi[0]
    close(predictor[3] * n[[3, 2]] / n[4], [1.5 * h, -0.5 * h], rtol=1e-10)
    close(after[4] * n[[4, 3, 2]] / n[4], np.array([5, 8, -1]) / 12 * h, rtol=1e-10)
    close(predictor[0] * n[0] / n[1], [h, 0.0], rtol=1e-10)
    close(after[1] * n[[1, 0, 0]] / n[1], [0.5 * h, 0.5 * h, 0.0], rtol=1e-10)


def test_unipc_of_order_2_predicts_by_2m(x64):
    """B(h) = 1 - e^-h makes the two-answer predictor DPM-Solver++(2M)'s step."""
    process, shared = VP(), dict(steps=6, end=0.01)
    w = dpm_solver_pp_2m(process, **shared).schedule[3]
    close(unipc(process, order=2, variant="bh2", **shared).schedule[-1], w, rtol=1e-12)


@pytest.mark.parametrize("h", [1e-9, 1e-4, 0.1, 3.0, 12.0])
def test_phi_functions_have_their_closed_forms_and_do_not_cancel(h):
    """φ_1 = (e^h - 1)/h, φ_2 = (φ_1 - 1)/h, φ_3 = (φ_2 - 1/2)/h; by series where h is small."""
    for sign in (1, -1):
        z = sign * h
        for k in (1, 2, 3):
            series, term = 0.0, 1.0 / np.prod(np.arange(1.0, k + 1))
            for n in range(200):
                series += term
                term *= z / (n + k + 1)
            close(phi(k, np.array(z)), series, rtol=1e-9 if z < -5 else 1e-13)


@pytest.mark.parametrize("rate", [1.0, 2.0, -1.0])
@pytest.mark.parametrize("h", [1e-6, 0.3, 8.0])
def test_the_weights_integrate_every_polynomial_they_interpolate(rate, h):
    """Σ_j w_j p(node_j) = ∫ e^(-rate u) p(λ_s - u) du, for 1, τ, τ²; moments by parts."""
    nodes = h * np.array([0.0, -0.7, -1.9])
    w = basis_integrals(h, nodes, rate)
    decay = np.exp(-rate * h)
    zero = -np.expm1(-rate * h) / rate
    for degree, moment in ((0, zero), (1, None), (2, None)):
        if moment is None:  # by a million-point midpoint rule
            u = (np.arange(1_000_000) + 0.5) * h / 1_000_000
            moment = np.mean(np.exp(-rate * u) * (h - u) ** degree) * h
        close(w @ nodes**degree, moment, rtol=1e-7, atol=1e-10 * max(1.0, decay) * h)


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - CHAINS - {"adaptive"}))
def test_the_clean_end_is_the_denoising_step(name, x64):
    """At σ(end) = 0 the last of the `steps` returns x0; nothing divides by zero."""
    process = VP()
    predict = exact(process, mixture())
    sampler = SAMPLERS[name](process, steps=4, grid="uniform", end=0.0, denoise=False)
    assert sampler.steps == 3 and sampler.schedule[1][-1] == 0.25
    draw = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    x, _ = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 5))
    assert np.all(np.isfinite(x))


COSTS = {
    "heun": 2,
    "edm_stochastic": 2,
    "dpm_solver_2": 2,
    "dpm_solver_3": 3,
    "predictor_corrector": 2,
}


@pytest.mark.parametrize("name", sorted(set(SAMPLERS) - CHAINS - {"adaptive"}))
def test_evaluations_are_counted_where_they_are_made(name):
    """Against a network that counts its own calls on the host."""
    process, calls = VP(), []

    def predict(x, t):
        jax.debug.callback(lambda: calls.append(1))
        return exact(process, mixture())(x, t)

    sampler = SAMPLERS[name](process, steps=5, end=0.05)
    draw = lambda key: base.sample_counted(key, process, sampler, predict, (2,))
    _, evaluations = jax.block_until_ready(jax.jit(draw)(jax.random.key(0)))
    jax.effects_barrier()
    assert evaluations == len(calls) == 5 * COSTS.get(name, 1) + 1


@pytest.mark.parametrize(
    ("make_it", "words"),
    [
        (lambda p: deis(p, order=0), "sampler.order must be at least 1, got 0"),
        (lambda p: unipc(p, order=-1), "sampler.order must be at least 1, got -1"),
        (lambda p: adams(p, order=0), "sampler.order must be at least 1, got 0"),
        (lambda p: unipc(p, variant="bh3"), "unknown sampler.variant 'bh3'"),
        (lambda p: dpm_solver_pp_2m(p, eta=-1.0), "sampler.eta must be at least 0, got -1.0"),
        (lambda p: ddim(p, eta=1.5), r"sampler.eta must lie in \[0, 1\], got 1.5"),
        (lambda p: edm_stochastic(p, churn=-1.0), "sampler.churn must be at least 0, got -1.0"),
        (lambda p: edm_stochastic(p, s_min=60.0), r"sampler.s_min must be in \[0, s_max = 50"),
        (lambda p: edm_stochastic(p, s_noise=0.0), "sampler.s_noise must be positive, got 0.0"),
        (lambda p: heun(p, steps=0), "sampler.steps must be at least 1, got 0"),
        (lambda p: heun(p, end=-0.1), r"sampler.end must lie in \[0, 1\), got -0.1"),
        (lambda p: heun(p, start=1.2), r"sampler.start must lie in .* got 1.2"),
        (lambda p: heun(p, start=0.1, end=0.2), "got 0.1 with end = 0.2"),
        (lambda p: heun(p, grid="logsnr"), "no noise at sampler.end = 0.0"),
        (lambda p: heun(p, grid="karras"), "no noise at sampler.end = 0.0"),
        (lambda p: heun(Flow(), grid="karras", end=0.1), "no data at sampler.start = 1.0"),
        (lambda p: heun(p, grid="ladder"), "'ladder' needs a process with a ladder"),
    ],
)
def test_a_bad_argument_is_refused_with_its_name_and_value(make_it, words):
    with pytest.raises(UserError, match=words):
        make_it(VP())


def test_a_solver_in_the_log_snr_starts_flow_where_there_is_data():
    """α(1) = 0 has no log SNR: it begins at logsnr = -14, and its first x has σ of that time."""
    sampler = dpm_solver_pp_2m(Flow(), steps=5)
    close(Flow().logsnr(sampler.start), -14.0, rtol=1e-5)
    assert sampler.schedule[0][0] == sampler.start
