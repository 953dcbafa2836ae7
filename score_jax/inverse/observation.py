"""A linear observation y = A x_0 + noise n, n ~ N(0, I), and the systems that it asks to be solved.

    observation = observe(y, gray(), noise=0.1, shape=(32, 32, 3))

Every inverse method takes one. A is a function of x, never a matrix, and its adjoint Aᵀ is what
JAX's reverse mode makes of it.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int, Real

from score_jax.errors import UserError, shortened
from score_jax.samplers.base import Sampler
from score_jax.types import Array, Example, Given, Integer

MISMATCH = 1e-4  # relative: float32 makes 1e-6 of it, a wrong function 1e-2 and more
ITERATIONS = 100  # of systems of A alone, without a network in them


class Observation(NamedTuple):
    """y = A x_0 + noise n, n ~ N(0, I), as `observe` makes it.

    y: of any shape. forward: A, linear, from x [shape] to an array of y's shape. noise: n's
    standard deviation, in the units of x; 0 for an exact observation. shape: x's.
    """

    y: Float[Array, "*seen"]
    forward: Callable[[Float[Array, "*shape"]], Float[Array, "*seen"]]
    noise: float
    shape: tuple[int, ...]

    def adjoint(self, y: Float[Given, "*seen"]) -> Float[Array, "*shape"]:
        """Aᵀ y [shape], for y of the observation's shape."""
        out, pull = jax.vjp(self.forward, jnp.zeros(self.shape, self.y.dtype))
        return pull(jnp.asarray(y, out.dtype))[0]

    def residual(self, x: Example) -> Float[Array, "*seen"]:
        """y - A x, of y's shape, for x [shape]."""
        return self.y - self.forward(jnp.asarray(x))


def observe(
    y: Real[Given, "*seen"],
    forward: Callable[[Float[Array, "*shape"]], Float[Array, "*seen"]],
    noise: float,
    shape: tuple[int, ...],
) -> Observation:
    """The Observation, checked; outside of compiled programs.

    Raises UserError unless y is real and finite, noise finite and not negative, forward can be
    traced and makes y's shape of x [shape], and for two random points and a random y'

        A(2 x - 3 z) = 2 A x - 3 A z,    <A x, y'> = <x, Aᵀ y'>

    to 1e-4 of the sizes of what is compared: so that A is linear, not affine, and its gradient
    its own.
    """
    shape = tuple(shape)
    _check_values(y, noise)
    observation = Observation(jnp.asarray(y, jnp.result_type(float)), forward, float(noise), shape)
    _check_shapes(observation)
    _check_linear(observation)
    return observation


def pseudo_inverse(observation: Observation, r: Float[Given, "*seen"]) -> Float[Array, "*shape"]:
    """A⁺ r = Aᵀ (A Aᵀ)⁻¹ r [shape]: of all x with A x = r the smallest, r of y's shape.

    By `solve`, to rounding or 100 iterations; exact in one iteration where A Aᵀ is a multiple of
    the identity (masks, gray, downsample, random_projection). Of an r that is no A x, the x of
    the least |A x - r|. 0 where nothing is observed.
    """
    return observation.adjoint(
        solve(
            lambda v: observation.forward(observation.adjoint(v)),
            jnp.asarray(r),
            iterations=ITERATIONS,
        )
    )


class _Search(NamedTuple):
    u: Float[Array, "*shape"]
    r: Float[Array, "*shape"]  # b - M u
    p: Float[Array, "*shape"]  # the last direction
    q: Float[Array, "*shape"]  # M p
    i: Int[Array, ""]
    norm: Float[Array, ""]  # the most by which M has enlarged a residual so far, squared
    moved: Bool[Array, ""]  # whether the last iteration changed u


def solve(
    product: Callable[[Float[Array, "*shape"]], Float[Array, "*shape"]],
    b: Float[Array, "*shape"],
    *,
    iterations: Integer,
    tolerance: float | None = None,
) -> Float[Array, "*shape"]:
    """u with M u = b, M given by v -> M v on arrays of b's shape, by conjugate residuals.

    Each iteration costs one product and makes |b - M u| as small as its direction allows,
    whatever M is, so u is never worse than 0. For a symmetric M these are the residuals of
    MINRES, exact after as many iterations as M has distinct eigenvalues; without symmetry it is
    Orthomin(1), which converges where M's symmetric part is positive definite (Eisenstat, Elman
    & Schultz 1983, "Variational iterative methods for nonsymmetric systems of linear equations").

    Conjugate gradients need a symmetric positive M, which the Jacobian of a trained network is
    not. With eigenvalues from 0.001 to 1 and a random asymmetry of 3% of the largest, 20 of their
    iterations end with an error of 3 to 20 times what is sought as the rule, conjugate residuals
    with 0.1 to 0.3 of it; on a symmetric M the error after 10 iterations is a third of theirs.

    It ends where |b - M u| <= tolerance |b|, by default ten roundings of b's type, after
    `iterations`, or where a direction leads nowhere: where M is singular and b not in its range.
    Not to be differentiated in reverse: its loop has no fixed length.
    """
    rounding = float(10 * jnp.finfo(b.dtype).eps)
    tolerance = rounding if tolerance is None else tolerance
    largest = jnp.max(jnp.abs(b), initial=0.0)
    size = jnp.where(largest == 0.0, 1.0, largest)  # NaN stays NaN
    b = b / size
    enough = tolerance**2 * jnp.vdot(b, b)

    def ratio(a, b):
        return jnp.where(b > 0.0, a / jnp.where(b > 0.0, b, 1.0), 0.0)

    def improve(search):
        u, r, p, q, i, norm, _ = search
        next_q = product(r)
        norm = jnp.maximum(norm, ratio(jnp.vdot(next_q, next_q), jnp.vdot(r, r)))
        back = ratio(jnp.vdot(next_q, q), jnp.vdot(q, q))
        p, q = r - back * p, next_q - back * q
        leads = jnp.vdot(q, q) > rounding**2 * norm * jnp.vdot(p, p)
        step = jnp.where(leads, ratio(jnp.vdot(r, q), jnp.vdot(q, q)), 0.0)
        return _Search(u + step * p, r - step * q, p, q, i + 1, norm, step != 0.0)

    def unfinished(search):
        return (search.i < iterations) & search.moved & (jnp.vdot(search.r, search.r) > enough)

    zero, none = jnp.zeros_like(b), jnp.zeros((), b.dtype)
    begin = _Search(zero, b, zero, zero, jnp.zeros((), jnp.int32), none, jnp.ones((), bool))
    return size * jax.lax.while_loop(unfinished, improve, begin).u


def require_memoryless(sampler: Sampler, method: str) -> None:
    """Raises UserError for a sampler whose state is more than x, or that is to be calibrated.

    method: whose name the message has.
    """
    if sampler.has_memory:
        raise UserError(
            f"{method} moves x after every step, and this sampler reuses what the network said "
            "at points where x no longer is (deis, unipc, dpm_solver_pp_2m and _3m, adaptive and "
            "mala do); use one whose state is x alone, such as ancestral, ddim or heun, or guide "
            "the prediction instead: pigdm or mmps work with every sampler"
        )
    if sampler.calibrate is not None:
        raise UserError(
            f"{method} needs a sampler whose schedule is known, and this one's depends on the "
            "network (variance = 'analytic'); use another variance, or calibrate it first: "
            "sampler.calibrate(errors)"
        )


def _check_values(y, noise):
    values = np.asarray(y)
    if np.iscomplexobj(values) or not np.all(np.isfinite(values)):
        raise UserError(
            "the observation y must be real and finite; leave what is not known out of y and of "
            "forward, as inverse.mask does"
        )
    if not 0.0 <= noise < np.inf:
        raise UserError(f"the observation's noise must be finite and at least 0, got {noise}")


def _check_shapes(observation):
    x = jax.ShapeDtypeStruct(observation.shape, observation.y.dtype)
    try:
        out = jax.eval_shape(observation.forward, x)
    except UserError:
        raise
    except Exception as error:
        raise UserError(
            f"forward could not be applied to x of shape {observation.shape}: "
            f"{type(error).__name__}: {shortened(str(error), 500)}"
        ) from error
    kind = getattr(out, "dtype", None)
    if kind is None or not jnp.issubdtype(kind, jnp.floating):
        raise UserError(
            "forward must return one array of real numbers (of complex ones their real and "
            f"imaginary parts side by side), got {kind or type(out).__name__}"
        )
    if out.shape != observation.y.shape:
        raise UserError(
            f"forward makes shape {out.shape} of x {observation.shape}, but y has shape "
            f"{observation.y.shape}; they must agree"
        )


def _check_linear(observation):
    with jax.default_matmul_precision("highest"):
        apart, size, there, back, product = map(float, jax.jit(lambda: _compared(observation))())
    if not apart <= MISMATCH * size:
        raise UserError(
            "forward must be linear, but forward(2 a - 3 b) and 2 forward(a) - 3 forward(b) "
            f"differ by {apart / size:.2g} of their size for random a and b; if it adds a "
            "constant, subtract forward(0) from y and in forward"
        )
    if not abs(there - back) <= MISMATCH * product:
        raise UserError(
            f"forward's gradient is not its own: <A x, v> = {there:.6g}, but <x, Aᵀ v> = "
            f"{back:.6g} by jax.vjp, {abs(there - back) / product:.2g} of their size apart; take "
            "out what changes its gradient (jax.custom_vjp, stop_gradient, rounding), or mend it"
        )


def _compared(observation):
    """What must be 0 for a linear function and its size, then what must agree and its size."""
    first, second, third = jax.random.split(jax.random.key(0), 3)
    normal = lambda key, shape: jax.random.normal(key, shape, observation.y.dtype)
    norm = lambda v: jnp.linalg.norm(v.ravel())
    x, z = normal(first, observation.shape), normal(second, observation.shape)
    a, b, both = (observation.forward(v) for v in (x, z, 2.0 * x - 3.0 * z))
    apart, size = norm(both - 2.0 * a + 3.0 * b), norm(both) + 2.0 * norm(a) + 3.0 * norm(b)
    v = normal(third, a.shape)
    v = a + norm(a) / jnp.sqrt(max(a.size, 1)) * v  # not orthogonal to A x, as random vectors are
    there, back = jnp.vdot(a, v), jnp.vdot(x, observation.adjoint(v))
    return apart, size, there, back, norm(a) * norm(v)
