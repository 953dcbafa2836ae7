"""DDPM on CIFAR-10, told the classes: ddpm_cifar.py with labels, each left out one time in ten.

Published: nothing with just this network. Classifier-free guidance is Ho & Salimans 2022 (arXiv
2207.12598), who have ImageNet; it trades the variety of samples for their typicality, so that FID
is best at a small weight: try --config.guidance.weight=0.1, and 1.0 to look at.
Network: 35,751,427 parameters.

--mode=classifier trains a classifier of the noised images, of 13,414,794 parameters, with the
noise levels of this run, for --config.guidance.by=classifier --config.guidance.weight=1.0
(Dhariwal & Nichol 2021, arXiv 2105.05233; Song et al. 2021, who released theirs without the program
that trains it). What accuracy to expect was not measured here.

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
                name="unet",
                features=128,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                dropout=0.1,
                classes=10,
                label_dropout=0.1,
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
            guidance=dict(weight=0.0),
            classifier=dict(
                features=128,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(16,),
                dropout=0.1,
                law="ladder",
                steps=200_000,
                batch_size=256,
                learning_rate=3e-4,
                warmup=5_000,
                clip=1.0,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
            ),
        )
    )
