"""NCSNv2 on LSUN bedroom 128x128: Song & Ermon 2020 (arXiv 2006.09011).

Published: samples; no FID.
Network: 83,445,379 parameters.

The ladder is that of their techniques 1 and 2, sigma from 190 to 0.01 in 1086 levels; the step is
their epsilon = 1.8e-06 times 2, since ours is that of the first paper (x + e/2 s + sqrt(e) z).
score_sde's config trains 2,400,000 steps; the paper's 150,000 are taken here. Samples start from
N(0, sigma_1^2), theirs from uniform noise in [0, 1]. The last step is denoising; without it:
--config.sampler.denoise=False.

Data: LSUN bedroom, as a folder of images: --config.data.path=...; here data/bedroom.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.levels=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="folder", path="data/bedroom", size=128, centered=False, flip=True),
            process=dict(name="ncsn", sigma_min=0.01, sigma_max=190.0, levels=1_086),
            model=dict(
                name="ncsnv2",
                features=128,
                multipliers=(1, 2, 2, 4, 4),
                centered=False,
                code="authors",
            ),
            parameterization=dict(view="scaled_score", condition="level"),
            loss=dict(
                name="denoising",
                law="ladder",
                view="scaled_score",
                weight="one",
                reduction="half_sum",
            ),
            sampler=dict(
                name="annealed_langevin",
                levels=1_086,
                steps_per_level=3,
                step_size=3.6e-6,
                denoise=True,
            ),
            training=dict(
                steps=150_000,
                batch_size=128,
                learning_rate=1e-4,
                ema=0.999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=64, features="inception"),
        )
    )
