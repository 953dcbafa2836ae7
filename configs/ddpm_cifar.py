"""DDPM on CIFAR-10, as in Ho et al. 2020 (arXiv 2006.11239).

Published: FID 3.17, Inception score 9.46, at most 3.75 bits per dimension (L_simple, the
larger variance). Network: the paper's U-Net with attention at 16x16 after every block of
both ways, 35,746,307 parameters (the paper: 35.7 M).

Time: 800,000 steps of 128 images; the paper reports 10.6 hours on a TPU v3-8 (not run here).
To see it take real steps on two CPU cores, in under two minutes:
    --config.training.batch_size=8 --config.training.steps=6 --config.training.log_every=1
    --config.sampler.steps=10 --config.evaluation.samples=4
Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow; a
prepared folder elsewhere is named by --config.data.data_dir.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=True, flip=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=128,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                dropout=0.1,
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=1_000, grid="ladder", variance="large", clip=True),
            training=dict(
                steps=800_000,
                batch_size=128,
                learning_rate=2e-4,
                warmup=5_000,
                clip=1.0,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=100_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
        )
    )
