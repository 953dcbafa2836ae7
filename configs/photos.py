"""DDPM on a folder of your own images, 32x32: a place to start from.

    python launch.py --config=configs/photos.py --config.data.path=my/photos

Network: 8,620,547 parameters. It takes every size that divides by 8, by --config.data.size=64 and
nothing else. Its attention stands in the middle, at an eighth of the size, since other resolutions
are not in every size; 32, 64 and 128 have one of 16 pixels, where DDPM has it on CIFAR-10:
--config.model.attention="(16,)".

Not yet run to its end by us. From few photos a network learns in the end
the photos themselves; the pictures in samples/ show when. docs/your_data.md has what to change
for how many photos of which size, and how long it takes.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="folder", path="photos", size=32, centered=True, flip=True),
            process=dict(name="ddpm", beta_min=1e-4, beta_max=0.02, levels=1_000),
            model=dict(
                name="unet",
                features=64,
                multipliers=(1, 2, 2, 2),
                blocks=2,
                attention=(),
                dropout=0.1,
            ),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(name="denoising", law="ladder", view="eps", weight="one", reduction="mean"),
            sampler=dict(name="ancestral", steps=250, grid="ladder", clip=True),
            training=dict(
                steps=20_000,
                batch_size=32,
                learning_rate=2e-4,
                warmup=500,
                clip=1.0,
                ema=0.999,
                log_every=50,
                sample_every=2_000,
                checkpoint_every=500,
            ),
            evaluation=dict(samples=64, batch_size=64, features="none"),
        )
    )
