"""NCSNv2 on CelebA 64x64: Song & Ermon 2020 (arXiv 2006.09011).

Published: FID 10.23 (denoised), 28.86 without.
Network: the authors' own, 29,694,083 parameters; score_sde's has 33,970,563:
--config.model.code=score_sde.

The ladder is that of their techniques 1 and 2, sigma from 90 to 0.01 in 500 levels; the step is
their epsilon = 3.3e-06 times 2, since ours is that of the first paper (x + e/2 s + sqrt(e) z).
score_sde's config trains 1,300,000 steps; the paper's 210,000 are taken here. Samples start from
N(0, sigma_1^2), theirs from uniform noise in [0, 1]. The last step is denoising; without it:
--config.sampler.denoise=False.

Data: the folder of CelebA's aligned images (img_align_celeba), cut to 140 pixels and resized to
64.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.levels=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(
                name="folder",
                path="data/img_align_celeba",
                size=64,
                centered=False,
                flip=True,
                crop=140,
            ),
            process=dict(name="ncsn", sigma_min=0.01, sigma_max=90.0, levels=500),
            model=dict(
                name="ncsnv2",
                features=128,
                multipliers=(1, 2, 2, 2),
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
                levels=500,
                steps_per_level=5,
                step_size=6.6e-6,
                denoise=True,
            ),
            training=dict(
                steps=210_000,
                batch_size=128,
                learning_rate=1e-4,
                ema=0.999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
        )
    )
