"""Flow matching with straight paths on CIFAR-10: Lipman et al. 2023 (arXiv 2210.02747), table 1.

Published: FID 6.35, 2.99 bits per dimension (142 network evaluations by an adaptive solver).
Network: ADM's U-Net with 256 features, appendix E: 171,268,099 parameters.

391,000 steps of 256 images at 5e-4 after 45,000 of warm-up, as in the paper, whose rate then
falls; ours stays. For the adaptive solver: --config.sampler.name=adaptive.

Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=True, flip=True),
            process=dict(name="flow"),
            model=dict(
                name="adm",
                features=256,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                head_channels=64,
                dropout=0e0,
            ),
            parameterization=dict(view="velocity", condition="time"),
            loss=dict(
                name="denoising",
                law="uniform",
                view="velocity",
                weight="one",
                reduction="mean",
            ),
            sampler=dict(name="heun", steps=71, grid="uniform"),
            training=dict(
                steps=391_000,
                batch_size=256,
                learning_rate=5e-4,
                warmup=45_000,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
            likelihood=dict(examples=10_000, end=1e-5),
        )
    )
