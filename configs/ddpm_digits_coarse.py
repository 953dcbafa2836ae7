"""DDPM on scikit-learn's digits, told something else than classes: an image, or a vector.

It is told each digit in 4x4 pixels and draws it in 8x8 (SR3, Saharia et al. 2021, arXiv
2104.07636, is this with photographs).

The condition is an image; --config.data.condition=ink tells it a vector instead, of one number, how
bright the digit is. Your own data bring theirs under `conditions`: see docs/conditional.md.
Sample i is told what test digit i is; in samples/final.png it stands right of it.
Time on two cores: 4 minutes.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="digits", split="train", centered=True, condition="coarse"),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=32,
                multipliers=(1, 2),
                blocks=2,
                attention=(4,),
                dropout=0.0,
                concat_condition=True,
                condition_dropout=0.1,
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
            evaluation=dict(samples=360, batch_size=360, allow_fewer=True),
            test=dict(split="test"),
        )
    )
