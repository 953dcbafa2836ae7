"""NCSN on a toy in the plane: three unequal modes, whose score is known exactly.

Expect a scatter plot of samples that is hard to tell from that of the data beside it. Time on
two cores: half a minute. The process is the continuous VE, the sampler anneals through 30 of
its levels.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="toy", density="three_modes", size=10_000),
            process=dict(name="ve", sigma_min=0.01, sigma_max=10.0),
            model=dict(name="mlp", width=128, depth=3, scale=100.0),
            parameterization=dict(view="eps", condition="log_sigma"),
            loss=dict(
                name="denoising", law="uniform", view="score", weight="sigma2", reduction="half_sum"
            ),
            sampler=dict(
                name="annealed_langevin",
                grid="uniform",
                levels=30,
                steps_per_level=100,
                step_size=2e-5,
            ),
            training=dict(
                steps=5_000,
                batch_size=256,
                learning_rate=1e-3,
                steps_per_call=50,
                log_every=500,
                sample_every=2_500,
                checkpoint_every=2_500,
            ),
            evaluation=dict(samples=5_000, batch_size=5_000, features="none", allow_fewer=True),
            test=dict(seed=1),
        )
    )
