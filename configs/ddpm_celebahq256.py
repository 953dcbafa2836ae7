"""DDPM on CelebA-HQ 256x256: Ho et al. 2020 (arXiv 2006.11239), appendix B.

Published: samples; no FID.
Network: 113,673,219 parameters (the paper: 114 M); score_sde's, with attention once a level on the
way up, has 111,569,923: --config.model.up_attention=level.

Training: 500,000 steps as in the paper; score_sde has 2,400,000.

Data: CelebA-HQ, as a folder of images: --config.data.path=...; here data/celebahq256.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="folder", path="data/celebahq256", size=256, centered=True, flip=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=128,
                multipliers=(1, 1, 2, 2, 4, 4),
                blocks=2,
                attention=(16,),
                up_attention="block",
                dropout=0e0,
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=1_000, grid="ladder", variance="small", clip=True),
            training=dict(
                steps=500_000,
                batch_size=64,
                learning_rate=2e-5,
                warmup=5_000,
                clip=1.0,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=10_000, batch_size=64, features="inception"),
        )
    )
