"""Ordinary differential equations, solved to a tolerance.

    solution = solve(lambda y, t: -y, y, 0.0, 1.0, rtol=1e-5, atol=1e-5)
    solution.y, solution.evaluations

The embedded Runge-Kutta pair of order 5(4) of Dormand & Prince (Hairer, Nørsett & Wanner
1993, "Solving Ordinary Differential Equations I", table II.5.2), its step size steered by a
proportional-integral controller (Hairer & Wanner 1996, volume II, section IV.2) with the
constants of their code DOPRI5. A step of size h from (y, t) is

    k_i = f(y + h Σ_j A_ij k_j, t + C_i h),  i = 1 .. 7,    y' = y + h Σ_j A_7j k_j,

and h Σ_j E_j k_j estimates its error. k_7 is the next step's k_1, so that a step costs six
calls. One program solves one example; under `vmap` each takes steps of its own.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Bool, Float, Int

from score_jax.errors import UserError
from score_jax.limits import check_at_most
from score_jax.types import Array, Scalar

State = Any  # a pytree of floating-point arrays

STAGES = 7
C = np.array([0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1, 1])
A = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0],
        [1 / 5, 0, 0, 0, 0, 0, 0],
        [3 / 40, 9 / 40, 0, 0, 0, 0, 0],
        [44 / 45, -56 / 15, 32 / 9, 0, 0, 0, 0],
        [19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729, 0, 0, 0],
        [9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656, 0, 0],
        [35 / 384, 0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84, 0],
    ]
)
E = np.array(
    [71 / 57600, 0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40]
)  # fifth order minus fourth

SAFETY, SMALLEST, LARGEST = 0.9, 0.2, 10.0  # a step to the last step: at least, at most
INTEGRAL = 0.04
PROPORTIONAL = 0.2 - 0.75 * INTEGRAL


class Solution(NamedTuple):
    """y: the state at t1. evaluations: calls of f really made. accepted: steps of the solution."""

    y: State
    evaluations: Int[Array, ""]
    accepted: Int[Array, ""]


class _Loop(NamedTuple):
    y: Float[Array, " D"]
    t: Float[Array, ""]
    h: Float[Array, ""]
    k: Float[Array, " D"]  # f(y, t)
    error: Float[Array, ""]  # of the last step accepted
    rejected: Bool[Array, ""]  # whether the last attempt was
    evaluations: Int[Array, ""]
    accepted: Int[Array, ""]


def check_tolerances(rtol: float, atol: float, max_evaluations: int) -> None:
    """Raises UserError unless atol > 0, rtol >= 0 and 8 <= max_evaluations < 2^31."""
    if not (atol > 0 and rtol >= 0):
        raise UserError(f"expected atol > 0 and rtol >= 0, got atol = {atol} and rtol = {rtol}")
    if max_evaluations < 2 + STAGES - 1:
        raise UserError(
            f"max_evaluations must be at least 8, the first step's cost, got {max_evaluations}"
        )
    check_at_most("max_evaluations", max_evaluations, 2**31 - 1)  # counted in int32


def solve(
    f: Callable[[State, Scalar], State],
    y: State,
    t0: Scalar,
    t1: Scalar,
    *,
    rtol: float,
    atol: float,
    max_evaluations: int = 10_000,
) -> Solution:
    """The solution at t1 of dy/dt = f(y, t) that is y at t0; t1 may lie before t0.

    A step is taken if its error, divided by atol + rtol max(|y|, |y'|) and averaged over the
    whole state (root mean square), is at most 1. The first step's size is that of Hairer,
    Nørsett & Wanner, section II.4, which costs two calls, made also where t0 = t1; each
    step, taken or not, costs six.

    NaN, never a wrong number, where the solution cannot be followed to t1: it is or gets
    non-finite, or needs steps that are too small for t's precision, or more than
    max_evaluations calls. Raises UserError as `check_tolerances`.
    """
    check_tolerances(rtol, atol, max_evaluations)
    rtol, atol = float(rtol), float(atol)  # of no type that y would be cast to
    y, unravel = ravel_pytree(y)
    t0, t1 = jnp.asarray(t0, y.dtype), jnp.asarray(t1, y.dtype)
    a, c, e = (jnp.asarray(table, y.dtype) for table in (A, C, E))

    def field(y, t):
        return ravel_pytree(f(unravel(y), t))[0].astype(y.dtype)

    def rms(x, scale):
        return jnp.sqrt(jnp.mean((x / (atol + rtol * scale)) ** 2))

    def combine(weights, k):
        return (weights[:, None] * k).sum(0)  # no matrix product, which may round more

    def first_step(k):
        span, size = jnp.abs(t1 - t0), jnp.abs(y)
        d0, d1 = rms(y, size), rms(k, size)
        h0 = jnp.where((d0 < 1e-5) | (d1 < 1e-5), 1e-6, 0.01 * d0 / d1)
        h0 = jnp.minimum(h0, span) * jnp.sign(t1 - t0)
        d2 = rms(field(y + h0 * k, t0 + h0) - k, size) / jnp.abs(h0)
        d = jnp.maximum(d1, d2)
        h1 = jnp.where(d <= 1e-15, jnp.maximum(1e-6, 1e-3 * jnp.abs(h0)), (0.01 / d) ** 0.2)
        return jnp.minimum(jnp.minimum(100.0 * jnp.abs(h0), h1), span) * jnp.sign(t1 - t0)

    def going(s):
        moves = jnp.abs((s.t + s.h) - s.t) > 0  # False for NaN
        return (s.t != t1) & moves & (s.evaluations + STAGES - 1 <= max_evaluations)

    def attempt(s):
        last = 1.01 * jnp.abs(s.h) >= jnp.abs(t1 - s.t)
        h = jnp.where(last, t1 - s.t, s.h)

        def stage(i, k):
            return k.at[i].set(field(s.y + h * combine(a[i], k), s.t + c[i] * h))

        k = jnp.zeros((STAGES, *s.k.shape), s.k.dtype).at[0].set(s.k)
        k = jax.lax.fori_loop(1, STAGES, stage, k)
        y_new = s.y + h * combine(a[-1], k)
        error = rms(h * combine(e, k), jnp.maximum(jnp.abs(s.y), jnp.abs(y_new)))

        finite = jnp.isfinite(error) & jnp.isfinite(y_new).all()
        accept = finite & (error <= 1.0)
        memory = jnp.where(accept, s.error**INTEGRAL, 1.0)
        change = jnp.clip(SAFETY * error**-PROPORTIONAL * memory, SMALLEST, LARGEST)
        change = jnp.where(finite, change, SMALLEST)
        change = jnp.where(s.rejected, jnp.minimum(change, 1.0), change)
        return _Loop(
            y=jnp.where(accept, y_new, s.y),
            t=jnp.where(accept, jnp.where(last, t1, s.t + h), s.t),
            h=h * change,
            k=jnp.where(accept, k[-1], s.k),
            error=jnp.where(accept, jnp.maximum(error, 1e-4), s.error),
            rejected=~accept,
            evaluations=s.evaluations + STAGES - 1,
            accepted=s.accepted + accept,
        )

    k = field(y, t0)
    error = jnp.asarray(1e-4, y.dtype)
    begin = _Loop(y, t0, first_step(k), k, error, jnp.array(False), jnp.int32(2), jnp.int32(0))
    end = jax.lax.while_loop(going, attempt, begin)
    y = jnp.where(end.t == t1, end.y, jnp.nan)
    return Solution(unravel(y), end.evaluations, end.accepted)
