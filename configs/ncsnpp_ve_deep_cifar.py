"""NCSN++, deep, under the VE SDE on CIFAR-10: Song et al. 2021 (arXiv 2011.13456), table 3.

Published: FID 2.20, Inception score 9.89 (the best checkpoint by FID, 50,000 samples); users of
the PyTorch port report 2.60.
Network: eight blocks a level: 107,587,075 parameters.

Training: 950,000 steps, in the paper and in the released code. As in the released code the
correction stands before the predictor; algorithms 2 and 3 of the paper have it after:
--config.sampler.first=predictor. (The corrector's factor alpha, on which they differ too, is 1 for
VE.) The EMA has rate 0.999, which they found best for VE, and here it warms up, which the JAX
code's does not.

Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=False, flip=True),
            process=dict(name="ve", sigma_min=0.01, sigma_max=50.0),
            model=dict(
                name="ncsnpp",
                features=128,
                multipliers=(1, 2, 2, 2),
                blocks=8,
                attention=(16,),
                dropout=0.1,
                fir=True,
                progressive_input="residual",
                embedding="fourier",
                centered=False,
            ),
            parameterization=dict(view="scaled_score", condition="log_sigma"),
            loss=dict(
                name="denoising",
                law="uniform",
                view="scaled_score",
                weight="one",
                reduction="half_sum",
            ),
            sampler=dict(
                name="predictor_corrector",
                predictor="reverse_diffusion",
                corrector="langevin",
                snr=0.16,
                steps=1_000,
                grid="uniform",
                end=1e-5,
                denoise=True,
            ),
            training=dict(
                steps=950_000,
                batch_size=128,
                learning_rate=2e-4,
                warmup=5_000,
                clip=1.0,
                ema=0.999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
        )
    )
