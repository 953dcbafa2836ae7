"""NCSNv2 on LSUN church 96x96: Song & Ermon 2020 (arXiv 2006.09011).

Published: samples; no FID.
Network: 83,445,379 parameters.

The ladder is that of their techniques 1 and 2, sigma from 140 to 0.01 in 788 levels; the step is
their epsilon = 4.9e-06 times 2, since ours is that of the first paper (x + e/2 s + sqrt(e) z). The
released church.yml says 64 pixels; the ladder is that of 96. Samples start from N(0, sigma_1^2),
theirs from uniform noise in [0, 1]. The last step is denoising; without it:
--config.sampler.denoise=False.

Data: LSUN church outdoor, as a folder of images: --config.data.path=...; here data/church.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.levels=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="folder", path="data/church", size=96, centered=False, flip=True),
            process=dict(name="ncsn", sigma_min=0.01, sigma_max=140.0, levels=788),
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
                levels=788,
                steps_per_level=4,
                step_size=9.8e-6,
                denoise=True,
            ),
            training=dict(
                steps=200_000,
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
