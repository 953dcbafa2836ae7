"""Averages of parameters over training whose length is chosen afterwards.

    snapshots = [Profile(step, sigma_rel), ...]          # of averages that were kept
    weights, error = coefficients(snapshots, Profile(last_step, 0.1))

A power-function average at step T weighs the parameters of the past step τ with

    p(τ) = (γ + 1) τ^γ / T^(γ+1),     0 <= τ <= T,

whose mean is (γ + 1)/(γ + 2) T and whose standard deviation, as a share of T, is σ_rel =
√((γ + 1)/((γ + 2)² (γ + 3))): the older the run, the longer it looks back. Such averages,
unlike exponential ones, forget the initial parameters; and from snapshots of two of them any
other can be put together by least squares after training.
Karras et al. 2024 (arXiv 2312.02696), section 3 and appendix C.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.types import Array, Scalar

WIDEST = 12**-0.5  # σ_rel of the plain mean of all steps, γ = 0


class Profile(NamedTuple):
    """The power-function average of relative standard deviation sigma_rel = σ_rel, at step T."""

    step: int
    sigma_rel: float


def exponent(sigma_rel: float) -> float:
    """γ of a relative standard deviation: the root of (γ + 1) = σ² (γ + 2)² (γ + 3).

    With z = γ + 2 it is z³ + z² - σ⁻² z + σ⁻² = 0, whose largest real root is meant.
    Raises UserError unless 0 < sigma_rel <= 12^-½ = 0.2887, that of the plain mean.
    """
    if not 0.0 < sigma_rel <= WIDEST * (1.0 + 1e-12):
        raise UserError(
            f"the relative length of an average must lie in (0, {WIDEST:.4f}], got {sigma_rel}"
        )
    inverse = sigma_rel**-2
    roots = np.roots([1.0, 1.0, -inverse, inverse])
    return max(float(roots.real.max()) - 2.0, 0.0)


def decay(gamma: float, step: Scalar) -> Array:
    """β in θ̂ ← β θ̂ + (1 - β) θ at update number `step` (from 1): (1 - 1/step)^(γ+1).

    So the weight of θ_k in θ̂_T is exactly (k/T)^(γ+1) - ((k-1)/T)^(γ+1), the integral of p from
    k - 1 to k. Karras et al. 2024, section 3.1.
    """
    n = jnp.asarray(step, jnp.float32)
    return jnp.exp((gamma + 1.0) * jnp.log1p(-1.0 / n))


def overlap(a: Profile, b: Profile) -> float:
    """∫ p_a p_b dτ, per step: with T the later step, T' the earlier, γ of the later,

    (γ_a + 1)(γ_b + 1)/(γ_a + γ_b + 1) (T'/T)^γ /T.    Karras et al. 2024, appendix C.3.

    Raises UserError as `exponent`.
    """
    g_a, g_b = exponent(a.sigma_rel), exponent(b.sigma_rel)
    earlier, later = min(a.step, b.step), max(a.step, b.step)
    cut_off = g_b if a.step <= b.step else g_a
    return (g_a + 1) * (g_b + 1) / (g_a + g_b + 1) * (earlier / later) ** cut_off / later


def coefficients(snapshots: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """(weights [n], error): Σ w_i p_i is the profile nearest to the wanted one, by least squares.

    error: the norm of what is left, as a share of the wanted profile's norm (both L2 in τ).
    A snapshot later than wanted has the weight 0. Karras et al. 2024, appendix C.3.
    Raises UserError without snapshots up to the wanted step, and as `exponent`.
    """
    usable = [i for i, snapshot in enumerate(snapshots) if 0 < snapshot.step <= wanted.step]
    if not usable:
        raise UserError(f"no snapshot of an average up to step {wanted.step}")
    chosen = [snapshots[i] for i in usable]
    gram = np.array([[overlap(a, b) for b in chosen] for a in chosen])
    target = np.array([overlap(a, wanted) for a in chosen])
    norm2 = overlap(wanted, wanted)
    scale = 1.0 / np.sqrt(np.diag(gram))  # every profile of norm 1: else the early ones drown
    solved = np.linalg.lstsq(gram * np.outer(scale, scale), target * scale, rcond=1e-13)[0]
    weights = np.zeros(len(snapshots))
    weights[usable] = solved * scale
    left = norm2 - 2.0 * weights[usable] @ target + weights[usable] @ gram @ weights[usable]
    return weights, float(np.sqrt(max(left, 0.0) / norm2))
