"""NCSN++ under the VE SDE on CelebA-HQ 1024x1024: Song et al. 2021.

arXiv 2011.13456, appendix H.3.
Published: samples; no FID.
Network: 105,785,896 parameters.

Training: 2,400,000 steps of 8 images. The released configs of the two data sets differ in the
loss, a mean over the pixels for FFHQ and half their sum for CelebA-HQ: loss.reduction. As in the
released code the correction stands before the predictor; algorithms 2 and 3 of the paper have it
after: --config.sampler.first=predictor. (The corrector's factor alpha, on which they differ too,
is 1 for VE.) The EMA has rate 0.9999, as in the released config, and here it warms up, which the
JAX code's does not.

Data: CelebA-HQ, as a folder of images: --config.data.path=...; here data/celebahq1024.
To see real steps on two CPU cores: --config.training.batch_size=8 --config.training.steps=6
    --config.training.log_every=1 --config.sampler.steps=10 --config.evaluation.samples=4
"""

from ml_collections import ConfigDict


def get_config():
    return ConfigDict(
        dict(
            data=dict(
                name="folder",
                path="data/celebahq1024",
                size=1_024,
                centered=False,
                flip=True,
            ),
            process=dict(name="ve", sigma_min=0.01, sigma_max=1348.0),
            model=dict(
                name="ncsnpp",
                features=16,
                multipliers=(1, 2, 4, 8, 16, 32, 32, 32),
                blocks=1,
                attention=(16,),
                dropout=0e0,
                fir=True,
                progressive_input="input_skip",
                progressive="output_skip",
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
                snr=0.15,
                steps=2_000,
                grid="uniform",
                end=1e-5,
                denoise=True,
            ),
            training=dict(
                steps=2_400_000,
                batch_size=8,
                learning_rate=2e-4,
                warmup=5_000,
                clip=1.0,
                ema=0.9999,
                log_every=100,
                sample_every=10_000,
                checkpoint_every=5_000,
                keep_every=50_000,
            ),
            evaluation=dict(samples=64, batch_size=1, features="inception"),
        )
    )
