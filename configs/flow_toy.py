"""Flow matching on a toy in the plane, with likelihood: three modes, whose density is known.

    python launch.py --config=configs/flow_toy.py
    python launch.py --config=configs/flow_toy.py --mode=likelihood

Expect a scatter plot of samples that is hard to tell from that of the data beside it, from ten
steps of Heun's method, and nats per dimension near those of the density itself. Any sampler
will do: try --config.sampler.name=unipc, or --config.sampler.steps=3.
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="toy", density="three_modes", size=10_000),
            process=dict(name="flow"),
            model=dict(name="mlp", width=128, depth=3),
            parameterization=dict(view="velocity", condition="time"),
            loss=dict(name="denoising", law="uniform", draws="stratified", view="velocity"),
            sampler=dict(name="heun", steps=10),
            training=dict(
                steps=10_000,
                batch_size=256,
                learning_rate=1e-3,
                steps_per_call=50,
                log_every=500,
                sample_every=5_000,
                checkpoint_every=5_000,
            ),
            evaluation=dict(samples=5_000, batch_size=5_000, features="none", allow_fewer=True),
            test=dict(seed=1),
            likelihood=dict(examples=1_000, batch_size=1_000, trace="exact"),
        )
    )
