"""DDPM on scikit-learn's digits, told the classes, with classifier-free guidance.

ddpm_digits.py's network and training, each label left out one time in ten (Ho & Salimans 2022,
arXiv 2207.12598).

Sample i is of class i mod 10; in samples/final.png every column is a class.
Expect a classifier of the real digits to take every sample for the class that was asked for, and 97
of 100 without guidance (--mode=evaluate: class_agreement). Time on two cores: as ddpm_digits.py.
--mode=classifier trains a classifier of the noised digits in a minute or two, right for 95 of 100
test digits with little noise, 75 at log SNR 0 and 26 at -2.8; then
    --mode=sample --config.guidance.by=classifier --config.guidance.weight=1.0
guides by it instead (Dhariwal & Nichol 2021, arXiv 2105.05233).
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="digits", split="train", centered=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=32,
                multipliers=(1, 2),
                blocks=2,
                attention=(4,),
                dropout=0.0,
                classes=10,
                label_dropout=0.1,
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=100, grid="ladder", variance="small", clip=True),
            training=dict(
                steps=1_000,
                batch_size=64,
                learning_rate=1e-3,
                warmup=100,
                clip=1.0,
                ema=0.995,
                log_every=50,
                sample_every=500,
                checkpoint_every=500,
            ),
            evaluation=dict(samples=1_437, batch_size=720, allow_fewer=True),
            test=dict(split="test"),
            guidance=dict(weight=1.0),
            classifier=dict(
                features=32,
                multipliers=(1, 2),
                blocks=1,
                attention=(),
                law="ladder",
                steps=1_000,
                batch_size=128,
                learning_rate=1e-3,
                warmup=100,
                ema=0.995,
                log_every=50,
                sample_every=500,
                checkpoint_every=500,
            ),
        )
    )
