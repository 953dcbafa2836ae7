"""Networks: MODELS maps a name to a Flax Linen module, called as module(x, c, train).

x [B, ...] noised examples, c [B] the noise level as the parameterization gives it,
train: whether dropout is on. Those with an option `classes` take besides label [B], int32, the
classes, -1 for none. Images are [B, H, W, C] in the range that the data's encoding gives them,
[-1, 1] or [0, 1]; points are [B, D]. The output has the shape of x, or, with outputs = 2, twice
as many channels: the second half is for learned variances.

Each has check(shape), which raises UserError for options that cannot be and for examples of a
shape that does not fit. It comes first in every call, so that making a network's parameters, or
only counting them, raises the same. `base.as_net` is the only way the rest of the project calls
a network.
"""

from score_jax.models.adm import ADM
from score_jax.models.dit import DiT
from score_jax.models.edm2 import EDM2
from score_jax.models.mlp import MLP
from score_jax.models.ncsnpp import NCSNpp
from score_jax.models.ncsnv2 import NCSNv2
from score_jax.models.refinenet import RefineNet
from score_jax.models.unet import UNet

MODELS = {
    "adm": ADM,
    "dit": DiT,
    "edm2": EDM2,
    "mlp": MLP,
    "ncsnpp": NCSNpp,
    "ncsnv2": NCSNv2,
    "refinenet": RefineNet,
    "unet": UNet,
}
