"""Samplers: SAMPLERS maps a name to a factory (process, **options) -> Sampler."""

from score_jax.samplers.ancestral import ancestral
from score_jax.samplers.langevin import annealed_langevin, langevin

SAMPLERS = {
    "langevin": langevin,
    "annealed_langevin": annealed_langevin,
    "ancestral": ancestral,
}
