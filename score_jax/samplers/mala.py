"""Langevin dynamics that is exact: proposals accepted or refused (Roberts & Tweedie 1996)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from numpy.polynomial import Legendre

from score_jax.errors import UserError
from score_jax.limits import check_at_most
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler, make_finish
from score_jax.samplers.langevin import langevin_step, times_at
from score_jax.types import Array

MOST_NODES = 30  # each is an evaluation more, written out in the program


class Chain(NamedTuple):
    """Where the chain is, and what is known of the density there."""

    x: Float[Array, "*shape"]
    score: Float[Array, "*shape"]
    log_density: Float[Array, ""]  # up to a constant; -∞ while nothing is known


def mala(
    process: GaussianProcess,
    *,
    steps: int = 1000,
    step_size: float = 1e-4,
    nodes: int = 1,
    end: float,
    denoise: bool = False,
) -> Sampler:
    """Metropolis-adjusted Langevin at the one time `end`, from the prior.

        x' = x + ε/2 s(x) + √ε z,    accepted with probability min(1, A),
        log A = log p(x') - log p(x) + log q(x | x') - log q(x' | x)
              = log p(x') - log p(x) - d·(s + s')/2 - ε/8 (|s'|² - |s|²),    d = x' - x

    Roberts & Tweedie 1996, section 1.4.1. The proposal is `langevin`'s step, its bias is not
    here: the stationary law is p_t whatever ε = step_size is (in units of x²). The larger ε,
    the fewer proposals are accepted. Between modes it is as slow as `langevin`.

    log p(x') - log p(x) is known of an energy network (`Prediction.log_density`). Of others it
    is the line integral of the score, ∫_0^1 s(x + u d)·d du, by Gauss-Lobatto quadrature with
    `nodes` points besides both ends (Sjöberg et al. 2023, arXiv 2307.14012, section 4, who take
    the trapezoidal rule): exact for scores of degree 2 nodes + 1 along the line. Without nodes
    between it hardly repairs anything where the steps are large: what is left is ε/8 (|s'|²
    - |s|²), which knows both ends only.

    steps: the first stays where it is and evaluates the start, the others propose.
    denoise: end with x ← E[x_0 | x], one network evaluation more.
    Network evaluations: 1 a step of an energy network, 1 + nodes of others.
    Raises UserError as `langevin`, and unless 0 <= nodes <= MOST_NODES.
    """
    if nodes < 0:
        raise UserError(f"sampler.nodes must be at least 0, got {nodes}")
    check_at_most("sampler.nodes", nodes, MOST_NODES)
    at = times_at(process, steps, end, step_size)
    step_sizes = np.where(np.arange(steps) == 0, 0.0, step_size)
    points, weights = _lobatto(nodes)
    finish = make_finish(end, denoise)

    def init(x):
        return Chain(x, jnp.zeros_like(x), jnp.asarray(-jnp.inf, x.dtype))

    def step(key, predict, chain, t, s, step_size):
        propose, accept = jax.random.split(key)
        x, score, log_density = chain
        proposal = langevin_step(propose, score, x, step_size)
        there = predict(proposal, t)
        d = proposal - x
        if there.log_density is not None:
            log_ratio, new_log_density = there.log_density - log_density, there.log_density
        else:
            between = [predict(x + u * d, t).score for u in points]
            slopes = jnp.stack([jnp.sum(s * d) for s in (score, *between, there.score)])
            log_ratio, new_log_density = weights @ slopes, log_density
        log_ratio -= 0.5 * jnp.sum(d * (score + there.score))
        log_ratio -= step_size / 8.0 * jnp.sum(there.score**2 - score**2)
        accepted = jnp.log(jax.random.uniform(accept)) < log_ratio
        new = Chain(proposal, there.score, new_log_density)
        return jax.tree.map(lambda new, old: jnp.where(accepted, new, old), new, chain)

    return Sampler(
        (at, at, step_sizes), init, step, lambda predict, chain: finish(predict, chain.x)
    )


def _lobatto(nodes: int) -> tuple[np.ndarray, np.ndarray]:
    """The inner points and all weights of the Gauss-Lobatto rule on [0, 1].

    The points are the roots of P'_{n-1}, the weights 1/(n (n - 1) P_{n-1}²), n = nodes + 2:
    Abramowitz & Stegun 1964, 25.4.32.
    """
    n = nodes + 2
    legendre = Legendre.basis(n - 1)
    inner: np.ndarray = legendre.deriv().roots()
    points = np.concatenate([[-1.0], inner, [1.0]])
    return 0.5 * (inner + 1.0), 1.0 / (n * (n - 1) * legendre(points) ** 2)
