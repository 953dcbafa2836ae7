"""DDPM++ under the discrete VP process on CIFAR-10: Song et al. 2021 (arXiv 2011.13456), table 3.

Published: FID 2.78, Inception score 9.64.
Network: 61,804,419 parameters.

Training follows the released code: 1,300,000 steps. The EMA has rate 0.9999, which they found best
for VP; here it warms up, which theirs does not. The paper also corrects (PC):
--config.sampler.name=predictor_corrector with --config.sampler.predictor=ancestral
--config.sampler.snr=0.01; its corrector's factor alpha is a product over the steps in the paper
and 1 - beta_i in the code: --config.sampler.damping=whole or step, the code's.

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
                name="ncsnpp",
                features=128,
                multipliers=(1, 2, 2, 2),
                blocks=4,
                attention=(16,),
                dropout=0.1,
                fir=False,
                progressive_input="none",
                embedding="positional",
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=1_000, grid="ladder", variance="large"),
            training=dict(
                steps=1_300_000,
                batch_size=128,
                learning_rate=2e-4,
                warmup=5_000,
                clip=1.0,
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
