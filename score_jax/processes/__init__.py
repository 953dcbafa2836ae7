"""Forward processes: PROCESSES maps a name to a factory (**options) -> GaussianProcess."""

from collections.abc import Callable

from score_jax.processes.base import (
    GaussianProcess,
    add_noise,
    diffusion2,
    drift,
    posterior,
    sample_prior,
    share_new,
    start_time,
    transition,
)
from score_jax.processes.curves import EDM, VE, VP, Cosine, Flow, SubVP
from score_jax.processes.ladders import Tabulated, geometric, linear_betas, quadratic_betas
from score_jax.processes.ncsnv2 import ncsnv2

PROCESSES: dict[str, Callable[..., GaussianProcess]] = {
    "ve": VE,
    "vp": VP,
    "subvp": SubVP,
    "cosine": Cosine,
    "edm": EDM,
    "flow": Flow,
    "ncsn": geometric,
    "ncsnv2": ncsnv2,
    "ddpm": linear_betas,
    "ddpm_quadratic": quadratic_betas,
}

__all__ = [
    "EDM",
    "PROCESSES",
    "VE",
    "VP",
    "Cosine",
    "Flow",
    "GaussianProcess",
    "SubVP",
    "Tabulated",
    "add_noise",
    "diffusion2",
    "drift",
    "posterior",
    "sample_prior",
    "share_new",
    "start_time",
    "transition",
]
