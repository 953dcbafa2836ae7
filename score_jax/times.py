"""Times to train at (laws) and times to sample through (grids).

A law maps u ~ U[0, 1) to a training time; a grid orders n + 1 decreasing sampling times
from 1 to the end, on the host in float64. The number of sampling steps is the sampler's:
it need not be the number of levels that the network was trained at.
"""

import jax.numpy as jnp
import numpy as np

from score_jax.errors import UserError
from score_jax.processes import GaussianProcess
from score_jax.types import Array, Scalar


def uniform_law(process: GaussianProcess, u: Scalar) -> Array:
    """t ~ U[1e-5, 1): Song et al. 2021, appendix C, which stay 1e-5 away from t = 0."""
    return 1e-5 + (1.0 - 1e-5) * u


def ladder_law(process: GaussianProcess, u: Scalar) -> Array:
    """t uniform over the N levels (i + 1)/N of a ladder. Ho et al. 2020, algorithm 1."""
    _require_ladder(process, "law")
    return (jnp.minimum(jnp.floor(u * process.levels), process.levels - 1) + 1) / process.levels


def uniform_grid(process: GaussianProcess, n: int, end: float) -> np.ndarray:
    """n equal steps of t from 1 to end."""
    return np.linspace(1.0, end, n + 1)


def ladder_grid(process: GaussianProcess, n: int, end: float) -> np.ndarray:
    """n of the ladder's levels, evenly spread from the noisiest, then `end`.

    With n = N all levels, as in NCSN and DDPM; with fewer the strided subset of Song et
    al. 2020 (DDIM, arXiv 2010.02502, section 4.2); with more the levels are interpolated.
    """
    _require_ladder(process, "grid")
    position = np.linspace(process.levels, 1.0, n)
    if n <= process.levels:
        position = np.round(position)
    return np.append(position / process.levels, end)


def _require_ladder(process, option):
    if process.levels is None:
        raise UserError(
            f"{option} = 'ladder' needs a process with a ladder (ncsn, ddpm), "
            f"got {type(process).__name__}; use 'uniform'"
        )


LAWS = {"uniform": uniform_law, "ladder": ladder_law}
GRIDS = {"uniform": uniform_grid, "ladder": ladder_grid}
