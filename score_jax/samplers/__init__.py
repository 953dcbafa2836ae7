"""Samplers: SAMPLERS maps a name to a factory (process, **options) -> Sampler.

A docstring gives the step from t to s < t, with z ~ N(0, I), and x0, eps (ε) and score what the
network says at (x_t, t); _t and _s are at these times. Options of the same name mean the same:
steps, grid, start, end and denoise as in `base.make_times`, which refuses with a UserError those
that cannot be, for every factory.
"""

from collections.abc import Callable

from score_jax.samplers.adaptive import adaptive
from score_jax.samplers.ancestral import ancestral, ddim
from score_jax.samplers.base import Sampler
from score_jax.samplers.langevin import annealed_langevin, langevin
from score_jax.samplers.mala import mala
from score_jax.samplers.multistep import (
    adams,
    deis,
    dpm_solver_pp_2m,
    dpm_solver_pp_3m,
    unipc,
)
from score_jax.samplers.ode import edm_stochastic, euler, heun
from score_jax.samplers.sde import euler_maruyama, predictor_corrector, reverse_diffusion
from score_jax.samplers.singlestep import dpm_solver_2, dpm_solver_3

SAMPLERS: dict[str, Callable[..., Sampler]] = {
    "langevin": langevin,
    "mala": mala,
    "annealed_langevin": annealed_langevin,
    "ancestral": ancestral,
    "ddim": ddim,
    "euler_maruyama": euler_maruyama,
    "reverse_diffusion": reverse_diffusion,
    "predictor_corrector": predictor_corrector,
    "euler": euler,
    "heun": heun,
    "edm_stochastic": edm_stochastic,
    "adaptive": adaptive,
    "dpm_solver_2": dpm_solver_2,
    "dpm_solver_3": dpm_solver_3,
    "dpm_solver_pp_2m": dpm_solver_pp_2m,
    "dpm_solver_pp_3m": dpm_solver_pp_3m,
    "deis": deis,
    "unipc": unipc,
    "adams": adams,
}
