"""python -m score_jax.interop: weights of other code bases in, our U-Net out to diffusers."""

import sys
from pathlib import Path

from absl import flags

from score_jax import config as configs
from score_jax.errors import UserError, unknown
from score_jax.main import configured, split_overrides, status_of
from score_jax.surroundings import before_jax

SOURCES = {
    "score_sde": "score_sde_pytorch's checkpoint_<n>.pth",
    "score_sde_jax": "score_sde's checkpoint_<n> (flax)",
    "ncsn": "NCSN's or NCSNv2's own checkpoint.pth",
    "diffusers": "a folder of diffusers with a UNet2DModel",
    "edm": "EDM's or EDM2's state dict as .safetensors or .npz",
}
EXPORT = "to_diffusers"
USAGE = "\n".join(
    [
        "usage: python -m score_jax.interop SOURCE FILE --config=CONFIG --workdir=FOLDER",
        "                        [--weights=ema] [--config.<section>.<option>=<value> ...]",
        *(f"  {name:14} FILE is {what}" for name, what in SOURCES.items()),
        "  --config    the experiment that the weights are of, from configs/; diffusers can do",
        "              without",
        "  --workdir   a new folder, which sample, evaluate, likelihood and train then take",
        "  --weights   ema or model: of two sets in the file, the one to sample with",
        f"or:    python -m score_jax.interop {EXPORT} FOLDER --workdir=RUN",
        "  writes the newest EMA weights of a run with a unet as a folder for diffusers",
    ]
)


def main(argv: list[str]) -> int:
    """Runs one command line; returns its exit status, as `score_jax.main.status_of` has it."""
    return status_of(lambda: _run(argv))


def _run(argv: list[str]) -> None:
    overrides, rest = split_overrides(argv)
    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "the experiment", flag_values=values)
    flags.DEFINE_string("workdir", None, "its folder", flag_values=values)
    flags.DEFINE_string("weights", "ema", "ema or model", flag_values=values)
    flags.DEFINE_bool("help", False, "show this", short_name="h", flag_values=values)
    try:
        words = values([argv[0], *rest])[1:]
    except flags.Error as error:
        raise UserError(f"{error}\n{USAGE}") from error
    if values.help:
        print(USAGE)
        return
    if len(words) != 2 or values.workdir is None:
        raise UserError(f"expected a source, a file and --workdir\n{USAGE}")
    what, path = words
    if what not in (*SOURCES, EXPORT):
        raise unknown("source", what, (*SOURCES, EXPORT))
    config = None if values.config is None else configs.load(values.config)
    workdir = Path(values.workdir)
    before_jax()
    if what == EXPORT:
        from score_jax.interop.exporting import export_to_diffusers

        export_to_diffusers(workdir, Path(path))
        print(f"written to {path}: UNet2DModel.from_pretrained({path!r})")
        return
    from score_jax.interop.importing import import_weights

    override = lambda config: configured(config, overrides)
    import_weights(what, Path(path), config, workdir, values.weights, override)
    print(
        f"to sample: python launch.py --config={workdir / 'config.json'} --workdir={workdir} "
        "--mode=sample"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv))
