"""Solvers with a memory: DPM-Solver++ 2M and 3M, DEIS, UniPC.

Each step asks the network once and reuses its last answers; the polynomial through them (in
λ = log α/σ) is integrated exactly (`exponential`). The first steps, with fewer answers to
go by, are of lower order. h = λ_s - λ_t. All raise UserError for more than MOST_WITH_MEMORY steps.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from score_jax.errors import UserError, unknown
from score_jax.limits import check_at_most
from score_jax.probability_flow import angle, norm
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler, Times, make_times
from score_jax.samplers.exponential import basis_integrals, curves
from score_jax.times import on_host

MOST_ANSWERS = 20  # that a step reuses
MOST_WITH_MEMORY = 20_000  # steps; each has weights of its own, and tens of steps are the rule

# (h, nodes) -> weights of the answers at the nodes; see basis_integrals
Rule = Callable[[float, Float[np.ndarray, " m"]], Float[np.ndarray, " m"]]


def dpm_solver_pp_2m(
    process: GaussianProcess,
    *,
    steps: int = 25,
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    eta: float = 0.0,
    denoise: bool = True,
) -> Sampler:
    """DPM-Solver++(2M): second order. Lu et al. 2022 (arXiv 2211.01095), algorithm 2.

    x_s = σ_s/σ_t e^(-ηh) x_t + α_s (1 - e^(-(1+η)h)) D + σ_s √(1 - e^(-2ηh)) z,
    D = x0_t + (x0_t - x0_r)/(2r), r = (λ_t - λ_r)/h for the time r before t.

    eta: 0 solves the ODE, 1 the reverse SDE (SDE-DPM-Solver++(2M), their section 5.1),
    anything else the SDEs in between and beyond. Raises UserError unless eta >= 0.
    """

    def rule(h, nodes):
        whole = -np.expm1(-(1 + eta) * h)
        if len(nodes) == 1:
            return np.array([whole])
        slope = 0.5 * h / (nodes[0] - nodes[1])
        return whole * np.array([1 + slope, -slope])

    times = make_times(process, grid, steps, end, denoise, start, divides=True)
    return _data_multistep(process, times, 2, rule, eta)


def dpm_solver_pp_3m(
    process: GaussianProcess,
    *,
    steps: int = 25,
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    eta: float = 0.0,
    common: bool = False,
    denoise: bool = True,
) -> Sampler:
    """DPM-Solver++ with three answers: third order, the exact integral of the parabola.

    x_s = σ_s/σ_t e^(-ηh) x_t + α_s ((1 - e^-k) x0_t + φ D' - 2 ψ D'') + noise as in 2M, with
    k = (1+η) h, φ = 1 - (1 - e^-k)/k, ψ = φ/k - 1/2 and, in units of h, D' the parabola's slope
    at λ_t and D'' its second divided difference, half of its second derivative.

    common: the form in common use, which lacks the 2 and is of second order; published
    numbers were made with it. eta: as in `dpm_solver_pp_2m`, also what is raised.
    Lu et al. 2022 (arXiv 2211.01095), appendix A, and their code.
    """

    def rule(h, nodes):
        weights = (1 + eta) * basis_integrals(h, nodes, 1 + eta)
        if common and len(nodes) == 3:
            k = (1 + eta) * h
            psi = (1 - (-np.expm1(-k)) / k) / k - 0.5
            a, b, c = nodes / h
            second = 1 / np.array([(a - b) * (a - c), (b - a) * (b - c), (c - a) * (c - b)])
            weights += psi * second
        return weights

    times = make_times(process, grid, steps, end, denoise, start, divides=True)
    return _data_multistep(process, times, 3, rule, eta)


def deis(
    process: GaussianProcess,
    *,
    steps: int = 25,
    order: int = 3,
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    denoise: bool = True,
) -> Sampler:
    """Exponential Adams-Bashforth of any order on ε, the polynomial in λ.

    x_s = α_s/α_t x_t - σ_s Σ_j w_j ε_j, w_j = ∫_0^h e^u ℓ_j(λ_s - u) du, ℓ_j the Lagrange
    polynomials of the last `order` answers. Order 1 is DDIM.
    Zhang & Chen 2023 (DEIS, arXiv 2204.13902), equation 14, with log-ρ as the time.
    Raises UserError unless 1 <= order <= MOST_ANSWERS.
    """
    _require_order(order)
    times = make_times(process, grid, steps, end, denoise, start, divides=True)
    here, there = curves(process, times.t), curves(process, times.s)
    weights = _weights(_lambdas(here, there), order, lambda h, nodes: basis_integrals(h, nodes, -1))
    return _multistep(times, "eps", there.alpha / here.alpha, -there.sigma[:, None] * weights)


def unipc(
    process: GaussianProcess,
    *,
    steps: int = 25,
    order: int = 3,
    variant: str = "bh2",
    grid: str = "logsnr",
    start: float = 1.0,
    end: float = 1e-3,
    denoise: bool = True,
) -> Sampler:
    """UniPC: a multistep predictor, and a corrector that costs no evaluation; order + 1.

    x_s = σ_s/σ_t x_t + α_s Σ_j w_j x0_j, w_j = ∫_0^h e^-u ℓ_j(λ_s - u) du: of the answers up to t
    in the predictor, with that at s in the corrector.

    The predictor goes from t to s by the last `order` answers x0; when the network is asked
    at s, that answer corrects the step just made, and serves the next one.
    variant: the function B(h) of their two-answer formulas, "bh1" h, "bh2" 1 - e^-h, or
    "vary": the exact integral, as it is with three answers and more in all variants.
    Zhao et al. 2023 (arXiv 2302.04867), algorithms 5 to 8.
    Raises UserError unless 1 <= order <= MOST_ANSWERS, and for an unknown variant.
    """
    _require_order(order)
    if variant not in VARIANTS:
        raise unknown("sampler.variant", variant, VARIANTS)
    times = make_times(process, grid, steps, end, denoise, start, divides=True)
    here, there = curves(process, times.t), curves(process, times.s)
    lam = _lambdas(here, there)
    spread = VARIANTS[variant]

    def rule(h, nodes):
        if len(nodes) != 2 or spread is None:
            return basis_integrals(h, nodes, 1.0)
        whole, other = -np.expm1(-h), 0.5 * spread(h) * h / (nodes[1] - nodes[0])
        return np.array([whole - other, other])

    predictor = there.alpha[:, None] * _weights(lam, order, rule)
    corrector = there.alpha[:, None] * _corrections(lam, order, rule)
    return _corrected(times, "x0", there.sigma / here.sigma, predictor, corrector)


VARIANTS = {"bh1": lambda h: h, "bh2": lambda h: -np.expm1(-h), "vary": None}


def adams(
    process: GaussianProcess,
    *,
    steps: int = 20,
    order: int = 3,
    grid: str = "angle",
    start: float = 1.0,
    end: float = 1e-3,
    denoise: bool = True,
) -> Sampler:
    """Adams' predictor and corrector on dy/dφ = v/n, the flow in the angle; order + 1.

    x_s = n_s (x_t/n_t + Σ_j w_j v_j/n_j), w_j = ∫_φt^φs ℓ_j dφ, by the last `order` answers; when
    the network is asked at s, that answer corrects the step just made, as in `unipc`, and serves
    the next one. y = x/n and φ as in `probability_flow`: smooth at both ends, where α = 0 as well.
    Hairer, Nørsett & Wanner 1993, "Solving Ordinary Differential Equations I", sections III.1
    and III.5, with steps of any length. Raises UserError unless 1 <= order <= MOST_ANSWERS.
    """
    _require_order(order)
    times = make_times(process, grid, steps, end, denoise, start)
    n, phi = on_host(
        lambda t: (norm(process, t), angle(process, t)), np.append(times.t, times.s[-1:])
    )
    rule = lambda h, nodes: -basis_integrals(h, nodes, 0.0)  # φ falls
    earlier = np.maximum(np.arange(len(times.t))[:, None] - np.arange(order), 0)
    predictor = n[1:, None] * _weights(-phi, order, rule) / n[earlier]
    corrector = n[1:, None] * _corrections(-phi, order, rule)
    corrector /= np.column_stack([n[1:], n[earlier]])
    return _corrected(times, "v", n[1:] / n[:-1], predictor, corrector)


def _data_multistep(
    process: GaussianProcess, times: Times, order: int, rule: Rule, eta: float
) -> Sampler:
    """σ_s/σ_t e^(-ηh) x_t + α_s Σ_j w_j x0_j + σ_s √(1 - e^(-2ηh)) z by the rule's weights."""
    if not eta >= 0:
        raise UserError(f"sampler.eta must be at least 0, got {eta}")
    here, there = curves(process, times.t), curves(process, times.s)
    h = there.lam - here.lam
    a = there.sigma / here.sigma * np.exp(-eta * h)
    w = there.alpha[:, None] * _weights(_lambdas(here, there), order, rule)
    c = there.sigma * np.sqrt(-np.expm1(-2 * eta * h)) if eta > 0 else None
    return _multistep(times, "x0", a, w, c)


def _multistep(
    times: Times, view: str, a: np.ndarray, w: np.ndarray, c: np.ndarray | None = None
) -> Sampler:
    """x_s = a x_t + Σ_j w_j view_j + c z; w: [n, memory + 1], the newest answer first."""
    memory = w.shape[1] - 1

    def step(key, predict, state, t, s, a, w, c=None):
        x, past = state
        answers = _remember(getattr(predict(x, t), view), past)
        x = a * x + jnp.tensordot(w, answers, 1)
        if c is not None:
            x = x + c * jax.random.normal(key, x.shape, x.dtype)
        return x, answers[:memory]

    def init(x):
        return x, jnp.zeros((memory, *x.shape), x.dtype)

    schedule = (times.t, times.s, a, w) if c is None else (times.t, times.s, a, w, c)
    return Sampler(schedule, init, step, _of_first(times.finish), times.start)


def _corrected(
    times: Times, view: str, a: np.ndarray, predictor: np.ndarray, corrector: np.ndarray
) -> Sampler:
    """x_s = a x_t + Σ_j predictor_j view_j, again with the corrector once view is known at s.

    corrector: [n, order + 1], in row i the weights of the answers at steps i + 1, i, ...
    """
    order = predictor.shape[1]

    def after(c):  # used one step later
        return np.concatenate([np.zeros_like(c[:1]), c[:-1]])

    keep = (np.arange(len(times.t)) == 0).astype(np.float64)

    def step(key, predict, state, t, s, keep, again, a, corrector, predictor):
        x, before, past = state
        answers = _remember(getattr(predict(x, t), view), past)
        x = keep * x + again * before + jnp.tensordot(corrector, answers, 1)
        foreseen = a * x + jnp.tensordot(predictor, answers[:order], 1)
        return foreseen, x, answers[:order]

    def init(x):
        return x, x, jnp.zeros((order, *x.shape), x.dtype)

    schedule = (times.t, times.s, keep, after(a), a, after(corrector), predictor)
    return Sampler(schedule, init, step, _of_first(times.finish), times.start)


def _corrections(lam: np.ndarray, order: int, rule: Rule) -> np.ndarray:
    """[n, order + 1]: in row i the weights of the answers at steps i + 1, i, i - 1, ...; else 0."""
    weights = np.zeros((max(len(lam) - 1, 0), order + 1))
    for i in range(len(weights)):
        known = min(order, i + 1)
        nodes = np.append(lam[i::-1][:known], lam[i + 1]) - lam[i]
        weights[i, : known + 1] = np.roll(rule(lam[i + 1] - lam[i], nodes), 1)
    return weights


def _weights(lam: np.ndarray, order: int, rule: Rule) -> np.ndarray:
    """[n, order]: in row i the weights of the answers at steps i, i - 1, ...; else 0."""
    steps = max(len(lam) - 1, 0)  # 0 where the only step is the denoising one
    check_at_most("sampler.steps of a solver with a memory", steps, MOST_WITH_MEMORY)
    weights = np.zeros((steps, order))
    for i in range(steps):
        known = min(order, i + 1)
        nodes = lam[i::-1][:known] - lam[i]
        weights[i, :known] = rule(lam[i + 1] - lam[i], nodes)
    return weights


def _lambdas(here, there):
    """λ at all n + 1 times."""
    return np.append(here.lam, there.lam[-1:])


def _remember(answer, past):
    return jnp.concatenate([answer[None], past])


def _of_first(finish):
    """finish of a state whose first part is x."""
    return lambda predict, state: finish(predict, state[0])


def _require_order(order):
    if order < 1:
        raise UserError(f"sampler.order must be at least 1, got {order}")
    check_at_most("sampler.order", order, MOST_ANSWERS)
