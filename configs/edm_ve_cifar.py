"""EDM with NCSN++ (their VE configuration) on CIFAR-10: Karras et al. 2022.

arXiv 2206.00364, table 2.
Published: FID 1.98, class-conditional 1.79 (35 network evaluations; the least of three draws).
Classes: --config.model.classes=10.
Network: 56,395,523 parameters and 128 fixed frequencies, 56,395,651 in all.

200 million images: 390,625 steps of 512. Their EMA has a half-life of 500,000 images, 0.9993 a
step, and a ramp. Theirs augments the images with probability 0.12, of which only the mirror images
are done here; so expect a little more.

Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=True, flip=True),
            process=dict(name="edm", sigma_min=2e-3, sigma_max=80.0, rho=7.0),
            model=dict(
                name="ncsnpp",
                features=128,
                multipliers=(2, 2, 2),
                blocks=4,
                attention=(16,),
                dropout=0.13,
                fir=True,
                progressive_input="residual",
                embedding="fourier",
            ),
            parameterization=dict(view="F", condition="edm", sigma_data=0.5),
            loss=dict(
                name="denoising",
                law="lognormal",
                view="x0",
                weight="edm",
                reduction="mean",
                sigma_data=0.5,
            ),
            sampler=dict(name="heun", steps=17, grid="uniform", denoise=True),
            training=dict(
                steps=390_625,
                batch_size=512,
                learning_rate=1e-3,
                warmup=19_532,
                ema=0.9993,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
        )
    )
