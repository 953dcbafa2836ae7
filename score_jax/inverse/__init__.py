"""Samples of which something is known: y = A x_0 + noise, A linear.

PREDICTIONS maps a name to (predict, process, observation, **options) -> PredictFn, SAMPLINGS to
(sampler, process, observation, **options) -> Sampler.
"""

from score_jax.inverse.dps import dps
from score_jax.inverse.gaussian import mmps, pigdm
from score_jax.inverse.replacement import repaint, replacement
from score_jax.inverse.twisted import twisted

PREDICTIONS = {"pigdm": pigdm, "mmps": mmps}
SAMPLINGS = {"replacement": replacement, "repaint": repaint, "dps": dps, "twisted": twisted}
