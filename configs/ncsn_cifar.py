"""NCSN on CIFAR-10, as in Song & Ermon 2019 (arXiv 1907.05600).

Published: FID 25.32, Inception score 8.87 (50,000 samples, the best of the checkpoints by
FID of 1,000). Network: RefineNet, 34,428,675 parameters as in score_sde's re-implementation; the
paper states no number, the authors' own code has 30,117,635: --config.model.code=authors.

Where the paper and the released code disagree this follows the code, which the published
figures came from: its image sampler writes x + ε s + √(2ε) z with ε = 2e-5, the paper's
algorithm 1 writes x + ε/2 s + √ε z with the same ε. In our convention (the algorithm's) the
code's step is 4e-5; for the paper's, --config.sampler.step_size=2e-5. Samples start from
N(0, σ_1²), the process's prior, where the paper's start from uniform noise in [0, 1].

Time: 200,000 steps of 128 images want an accelerator (not run here). To see it take real
steps on two CPU cores, in about two minutes:
    --config.training.batch_size=8 --config.training.steps=6 --config.training.log_every=1
    --config.sampler.steps_per_level=1 --config.evaluation.samples=4
Data: CIFAR-10 by TFDS, downloaded and prepared on the first run without TensorFlow; a
prepared folder elsewhere is named by --config.data.data_dir.
"""

from ml_collections import ConfigDict

LEVELS = 10
CODE_STEP = 2e-5


def get_config():
    return ConfigDict(
        dict(
            data=dict(name="tfds", dataset="cifar10", centered=False, flip=True, dequantize=True),
            process=dict(name="ncsn", sigma_min=0.01, sigma_max=1.0, levels=LEVELS),
            model=dict(name="refinenet", features=128, levels=LEVELS),
            parameterization=dict(view="score", condition="level"),
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
                steps_per_level=100,
                step_size=2 * CODE_STEP,
                denoise=False,
            ),
            training=dict(
                steps=200_000,
                batch_size=128,
                learning_rate=1e-3,
                ema=0.0,
                log_every=100,
                sample_every=5_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=50_000, batch_size=500, features="inception"),
            test=dict(split="test"),
        )
    )
