"""NCSN on scikit-learn's digits: the demo.

Noise conditional score network (Song & Ermon 2019) on 1,797 real 8x8 digits, with the ladder
of NCSNv2 (Song & Ermon 2020, technique 2: neighbouring levels overlap) in place of ten
levels, and its network f(x)/σ (technique 3), here as the eps view.
"""

from ml_collections import ConfigDict

LEVELS = 14


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="digits", centered=False),
            process=dict(name="ncsn", sigma_min=0.03, sigma_max=2.0, levels=LEVELS),
            model=dict(name="refinenet", features=16, levels=LEVELS),
            parameterization=dict(view="eps", condition="level"),
            loss=dict(
                name="denoising",
                law="ladder",
                view="score",
                weight="sigma2",
                reduction="half_sum",
            ),
            sampler=dict(
                name="annealed_langevin",
                levels=LEVELS,
                steps_per_level=10,
                step_size=1.8e-4,
                denoise=True,
            ),
            training=dict(
                steps=1_400,
                batch_size=64,
                learning_rate=2e-3,
                ema=0.999,
                log_every=50,
                sample_every=700,
                checkpoint_every=350,
            ),
            evaluation=dict(samples=1_797, batch_size=600),
        )
    )
