"""Editing images that one has: a little noise and back, or along the probability-flow ODE.

sampler = started_from(ancestral(process, start=0.45), process, x_0)     # SDEdit
x_start, evaluations = invert(process, predict, x_0)                     # an image's latent
x_0, evaluations = decode(process, predict, x_start)                     # and back
x, evaluations = interpolate(process, predict, x_a, x_b, 0.5)            # between two images
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from score_jax.errors import UserError
from score_jax.odes import check_tolerances, solve
from score_jax.predictions import PredictFn
from score_jax.probability_flow import angle, angle_field, flow_times, norm
from score_jax.processes import GaussianProcess, add_noise
from score_jax.samplers.base import Sampler
from score_jax.times import on_host
from score_jax.types import Array, Example, Scalar

LEAST_LOGSNR = -7.0  # of a start at which an image is still seen: σ/α = 33
GOOD_LOGSNR = -2.0  # of the start that is proposed instead: σ/α = 2.7


def started_from(sampler: Sampler, process: GaussianProcess, x_0: Example) -> Sampler:
    """The sampler, from x = α x_0 + σ z at sampler.start on, z ~ N(0, I), not from the prior.

    SDEdit: Meng et al. 2022 (arXiv 2108.01073), algorithm 1, for any process and sampler. From an
    exact network and a sampler that draws from the reverse process, the samples have the law of
    p(x_0' | x_t) with x_t drawn from x_0: of real data where x_0 is no real datum, and the nearer
    to x_0 the earlier the start. Theirs, times of 0.3 to 0.6, are σ/α from 1.2 to 6.1 on VP.

    x_0: in the network's units.
    Raises UserError for a start at which nothing is left of x_0 (logsnr < -7, σ/α > 33: of
    256x256 pixels little more than their mean), and, when it is drawn, for another shape.
    """
    logsnr, good = _logsnr_and_time(process, sampler.start, GOOD_LOGSNR)
    if logsnr < LEAST_LOGSNR:
        raise UserError(
            f"sampler.start = {sampler.start:.6g} has σ/α = {np.exp(-0.5 * logsnr):.3g}: nothing "
            f"of the image is left there; start earlier, for example at {good:.2g}, where σ/α = "
            f"{np.exp(-0.5 * GOOD_LOGSNR):.2g}: the earlier, the more is kept"
        )

    def first(key, shape):
        _check_shape("x_0", x_0, shape)
        return add_noise(process, x_0, jax.random.normal(key, shape), sampler.start)

    known = sampler.calibrate
    calibrate = known and (lambda errors: started_from(known(errors), process, x_0))
    return sampler._replace(first=first, calibrate=calibrate)


def invert(
    process: GaussianProcess,
    predict: PredictFn,
    x_0: Example,
    *,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10_000,
) -> tuple[Float[Array, "*shape"], Int[Array, ""]]:
    """(x at `start`, network evaluations): x_0 carried up the probability-flow ODE, its latent.

    Song et al. 2021 (arXiv 2011.13456), section 4.3; Song et al. 2020 (DDIM, arXiv
    2010.02502), section 5.4. x_0 is taken to be the x at time `end` as it is. If it is drawn
    from p_end, x has the law of x_start, almost N(0, σ(start)² I).

    end, start: the ODE's ends; where α(start) = 0 it is the time with logsnr = -14, as in
    `samplers.adaptive`. rtol, atol, max_evaluations: of `odes.solve`, which counts calls of
    predict; NaN where it gives up. Network evaluations are those calls, each as dear as the first:
    with guidance in an interval of its own that is not exact.
    Raises UserError unless 0 <= end < start <= 1 and σ(end) > 0, and as `odes.check_tolerances`.
    """
    end, start = flow_times(process, end, start)
    return _carried(process, predict, x_0, end, start, rtol, atol, max_evaluations)


def decode(
    process: GaussianProcess,
    predict: PredictFn,
    x_start: Example,
    *,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10_000,
) -> tuple[Float[Array, "*shape"], Int[Array, ""]]:
    """(x at `end`, network evaluations): `invert` backwards; there and back is x to the tolerance.

    Options and errors as in `invert`. Nothing is denoised at `end`.
    """
    end, start = flow_times(process, end, start)
    return _carried(process, predict, x_start, start, end, rtol, atol, max_evaluations)


def _carried(process, predict, x, t, s, rtol, atol, max_evaluations):
    """x at t, along the probability-flow ODE to s: (x at s, network evaluations)."""
    asked = []  # how often networks are asked for one prediction, as `samplers.adaptive` counts

    def noted(x, t):
        prediction = predict(x, t)
        asked.append(prediction.evaluations)
        return prediction

    solution = solve(
        angle_field(process, noted),
        x / norm(process, t),
        angle(process, t),
        angle(process, s),
        rtol=rtol,
        atol=atol,
        max_evaluations=max_evaluations,
    )
    return norm(process, s) * jnp.asarray(solution.y), asked[0] * solution.evaluations


def slerp(a: Example, b: Example, fraction: Scalar) -> Float[Array, "*shape"]:
    """From a (fraction 0) to b (1) along the great circle of their directions.

        r (sin((1-f)Ω)/sin Ω a/|a| + sin(fΩ)/sin Ω b/|b|),    r = (1-f) |a| + f |b|,

    Ω the angle between a and b, all norms Euclidean over all numbers. Shoemake 1985 ("Animating
    rotation with quaternion curves", section 3.3), on directions; the length is interpolated
    linearly, so that it lies between those of a and b whatever the angle. In many dimensions
    nearly all of N(0, σ² I) has length σ√D, which this keeps, where (1-f) a + f b falls to
    0.7 of it. Undefined for a = 0 or b = 0, and where a and b point in opposite directions.
    """
    length_a, length_b = jnp.linalg.norm(a.ravel()), jnp.linalg.norm(b.ravel())
    u, v = a.ravel() / length_a, b.ravel() / length_b
    omega = 2.0 * jnp.arctan2(jnp.linalg.norm(u - v), jnp.linalg.norm(u + v))  # small or not

    def share(k):
        """sin(kΩ)/sin Ω; k at Ω = 0."""
        return k * jnp.sinc(k * omega / jnp.pi) / jnp.sinc(omega / jnp.pi)

    length = (1.0 - fraction) * length_a + fraction * length_b
    part_a, part_b = share(1.0 - fraction) / length_a, share(fraction) / length_b
    return (length * part_a) * a + (length * part_b) * b


def interpolate(
    process: GaussianProcess,
    predict: PredictFn,
    x_a: Example,
    x_b: Example,
    fraction: Scalar,
    *,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10_000,
) -> tuple[Float[Array, "*shape"], Int[Array, ""]]:
    """(x, network evaluations): between two images: their latents' `slerp`, decoded.

    Song et al. 2020 (DDIM), section 5.3 and appendix D.5; Song et al. 2021, section 4.3.
    fraction: 0 gives x_a back and 1 x_b, to the tolerance; it may be traced.
    max_evaluations: of each of the three solutions. Options and errors as in `invert`, and a
    UserError for x_a and x_b of unequal shapes.
    """
    _check_shape("x_b", x_b, jnp.shape(x_a))
    options: dict[str, Any] = dict(
        end=end, start=start, rtol=rtol, atol=atol, max_evaluations=max_evaluations
    )
    both = jnp.stack([x_a, x_b])
    (a, b), up = jax.lax.map(lambda x: invert(process, predict, x, **options), both)
    x, down = decode(process, predict, slerp(a, b, fraction), **options)
    return x, up.sum() + down


class _State(NamedTuple):
    x: Float[Array, "*shape"]
    evaluations: Int[Array, ""]


def interpolation(
    process: GaussianProcess,
    x_a: Example,
    x_b: Example,
    *,
    fraction: Scalar,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_evaluations: int = 10_000,
) -> Sampler:
    """`interpolate` as a sampler of one step, without randomness; its first x is x_a, at `end`.

    fraction: may be traced, so that every sample has its own. Options and errors as in
    `interpolate`, and a UserError for samples of another shape than the images'.
    """
    _check_shape("x_b", x_b, jnp.shape(x_a))
    check_tolerances(rtol, atol, max_evaluations)
    end, start = flow_times(process, end, start)
    options: dict[str, Any] = dict(
        end=end, start=start, rtol=rtol, atol=atol, max_evaluations=max_evaluations
    )

    def first(key, shape):
        _check_shape("x_a", x_a, shape)
        return jnp.asarray(x_a)

    def step(key, predict, state, t, s):
        x, evaluations = interpolate(process, predict, state.x, x_b, fraction, **options)
        return _State(x, state.evaluations + evaluations)

    return Sampler(
        schedule=(np.array([start]), np.array([end])),
        init=lambda x: _State(x, jnp.int32(0)),
        step=step,
        finish=lambda predict, state: state.x,
        start=end,
        evaluations=lambda state: state.evaluations,
        between=None,
        first=first,
    )


def _check_shape(name, x, shape):
    if jnp.shape(x) != tuple(shape):
        raise UserError(f"expected {name} of shape {tuple(shape)}, got {jnp.shape(x)}")


def _logsnr_and_time(process, t, logsnr):
    """(logsnr(t), the time with this logsnr), on the host."""
    here = on_host(process.logsnr, np.array([t]))[0]
    time = on_host(process.time_of_logsnr, np.array([logsnr]))[0]
    return float(here), float(np.clip(time, 0.0, 1.0))
