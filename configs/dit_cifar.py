"""DiT on CIFAR-10, told the classes: Peebles & Xie 2023 (arXiv 2212.09748).

Published: nothing on CIFAR-10: the paper has latents of ImageNet. The network is its DiT-S with
patches of 2x2 on pixels.
Network: 32,480,280 parameters, with learned variances and 10 classes.

Training as in the paper: Adam at 1e-4 without warm-up, 400,000 steps of 256 images, the loss of
Nichol & Dhariwal 2021, labels left out one time in ten; 250 steps of the reverse chain.

Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=True, flip=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="dit",
                width=384,
                depth=12,
                heads=6,
                patch=2,
                classes=10,
                label_dropout=0.1,
                outputs=2,
            ),
            parameterization=dict(view="eps", condition="level", learned_variance=True),
            loss=dict(name="hybrid"),
            sampler=dict(name="ancestral", steps=250, grid="ladder", variance="learned", clip=True),
            training=dict(
                steps=400_000,
                batch_size=256,
                learning_rate=1e-4,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
        )
    )
