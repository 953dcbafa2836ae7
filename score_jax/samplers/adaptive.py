"""The probability-flow ODE by an adaptive solver (Song et al. 2021, section 4.3)."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from score_jax.odes import check_tolerances, solve
from score_jax.probability_flow import angle, angle_field, flow_times, norm
from score_jax.processes import GaussianProcess
from score_jax.samplers.base import Sampler, make_finish
from score_jax.types import Array


class _State(NamedTuple):
    x: Float[Array, "*shape"]
    evaluations: Int[Array, ""]


def adaptive(
    process: GaussianProcess,
    *,
    end: float = 1e-3,
    start: float = 1.0,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    denoise: bool = True,
    max_evaluations: int = 10_000,
) -> Sampler:
    """dy/dφ = v/n from start to end, y = x/n and φ as in `probability_flow`, in one step.

    The solver (`odes.solve`) chooses its own steps, for every sample its own number of them,
    so that each makes an error of about rtol of y or atol; samples that take it more than
    max_evaluations come out as NaN. No randomness but the first x, drawn at `start` or, where
    α(start) = 0, at the time with logsnr = -14. denoise: end with E[x_0 | x], one network
    evaluation more.

    Raises UserError unless 0 <= end < start <= 1 and σ(end) > 0, and as `odes.check_tolerances`.
    """
    check_tolerances(rtol, atol, max_evaluations)
    end, start = flow_times(process, end, start)
    last = make_finish(end, denoise)

    def step(key, predict, state, t, s):
        asked = []  # how often networks are asked for one prediction, when the field is traced

        def noted(x, t):
            prediction = predict(x, t)
            asked.append(prediction.evaluations)
            return prediction

        solution = solve(
            angle_field(process, noted),
            state.x / norm(process, t),
            angle(process, t),
            angle(process, s),
            rtol=rtol,
            atol=atol,
            max_evaluations=max_evaluations,
        )
        x = norm(process, s) * solution.y
        return _State(x, state.evaluations + asked[0] * solution.evaluations)

    return Sampler(
        schedule=(np.array([start]), np.array([end])),
        init=lambda x: _State(x, jnp.int32(0)),
        step=step,
        finish=lambda predict, state: last(predict, state.x),
        start=start,
        evaluations=lambda state: state.evaluations,
        between=None,
    )
