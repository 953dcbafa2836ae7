"""NCSNv2's network: NCSN's RefineNet, unconditional (Song & Ermon 2020, table 3)."""

import functools

import flax.linen as nn
import jax.numpy as jnp

from score_jax.errors import UserError
from score_jax.models.blocks import shared
from score_jax.models.refinenet import InstanceNorm, RefineBlock, ResidualBlock, check_code, conv

DILATIONS = (2, 4)  # of the last two stages, which keep the resolution


class NCSNv2(nn.Module):
    """The RefineNet of Song & Ermon 2020 (arXiv 2006.09011); for 32 and 64 pixels by default.

    It is not told the noise level: c is accepted and not used. By their technique 3 the score is
    f(x)/σ, so f, which this network puts out, is σ times the score. Against NCSN's network the
    instance norm++ has one set of parameters for all levels, the blocks that fuse have no norms,
    and the maximum is pooled in their chains instead of the mean.

    features: channels of the first stage. multipliers: channels of each stage, in features. The
    resolution halves between stages, but not before the last two, which are dilated instead, by
    2 and 4. (1, 2, 2, 4, 4) is the authors' network for 96 and 128 pixels, (1, 2, 2, 2, 4, 4) that
    for 256. code: "authors" or "score_sde", whose network it is, see refinenet.CODES. centered:
    whether the images lie in [-1, 1]; else, in [0, 1], 2x - 1 is what the network sees. remat: as
    in RefineNet.

    Needs images whose sides divide by 2^(len(multipliers) - 3). With three channels 33,970,563
    parameters in score_sde's code, 29,694,083 in the authors'; for 128 pixels 83,445,379 and for
    256 94,132,611 in both.
    """

    features: int = 128
    multipliers: tuple[int, ...] = (1, 2, 2, 2)
    code: str = "score_sde"
    centered: bool = False
    remat: bool = False

    @nn.compact
    def __call__(self, x, c, train=False):
        self.check(x.shape[1:])
        widths = [multiplier * self.features for multiplier in self.multipliers]
        authors = self.code == "authors"
        dilations = (1,) * (len(widths) - 2) + DILATIONS
        only = jnp.zeros(x.shape[0], int)  # the one level of the norms

        def call(block, h):
            return shared(block, h, only, remat=self.remat)

        h = conv(widths[0], name="begin")(x if self.centered else 2.0 * x - 1.0)
        stages = []
        for i, (width, dilation) in enumerate(zip(widths, dilations)):
            for j in range(2):
                enter, name = i > 0 and j == 0, f"stage_{i}_block_{j}"
                block = ResidualBlock(
                    width, 1, enter=enter, dilation=dilation, unbiased=authors, name=name
                )
                h = call(block, h)
            stages.append(h)

        *finer, h = stages
        h = call(RefineBlock(widths[-1], 0, name=f"refine_{len(finer)}"), [h])
        fuse = functools.partial(RefineBlock, levels=0, corners=authors)
        for i, stage in reversed(list(enumerate(finer))):
            narrow = authors or len(widths) > 4
            width = widths[max(i - 1, 0) if narrow else i]
            h = call(fuse(width, last=i == 0, name=f"refine_{i}"), [stage, h])

        h = nn.elu(InstanceNorm(1, authors, name="out_norm")(h, only))
        return conv(x.shape[-1], name="out")(h)

    def check(self, shape: tuple[int, ...]) -> None:
        """Raises UserError unless images of this shape [H, W, C] fit the network."""
        if self.features < 2:  # a norm over the channels needs 2
            raise UserError(f"model.features must be at least 2, got {self.features}")
        check_code(self.code)
        if len(self.multipliers) < 3 or min(self.multipliers) < 1:
            raise UserError(
                "model.multipliers must be three or more numbers of at least 1, "
                f"got {self.multipliers}"
            )
        factor = 2 ** (len(self.multipliers) - 3)
        if len(shape) != 3 or shape[0] % factor or shape[1] % factor:
            raise UserError(
                f"model ncsnv2 with {len(self.multipliers)} multipliers needs images [H, W, C] "
                f"whose sides divide by {factor}, got {tuple(shape)}; use fewer multipliers, "
                "or set data.size"
            )
