"""A run of ours as a folder that diffusers loads."""

from pathlib import Path
from typing import Any

from score_jax import config as configs
from score_jax.build import build
from score_jax.errors import UserError
from score_jax.interop.diffusers import write_folder
from score_jax.interop.diffusers_schedulers import scheduler_config
from score_jax.interop.importing import without_images
from score_jax.training.checkpoints import Checkpoints
from score_jax.training.state import create


def export_to_diffusers(workdir: Path, folder: Path) -> None:
    """Writes the averaged weights of the run's newest checkpoint, and its scheduler.

    Where diffusers has no scheduler like it, which is said, the network alone. Raises UserError,
    with nothing written, for no run, a run whose network diffusers does not have or that has no
    whole checkpoint, and for a folder with something in it.
    """
    if not (workdir / "starts.jsonl").is_file():
        raise UserError(f"no run in {workdir}; give the --workdir of one")
    sections = configs.load(str(workdir / "config.json")).to_dict()
    if sections["model"].get("concat_condition"):
        raise UserError(
            "config.model.concat_condition = True: diffusers' UNet2DModel is told no conditions"
        )
    plain = {"data": without_images(sections["data"]), "test": {}, "guidance": {}, "classifier": {}}
    experiment = build(sections | plain)
    with Checkpoints(workdir, experiment.training, read_only=True) as checkpoints:
        state, _ = checkpoints.restore(like=create(experiment))
    told: dict[str, Any] | None = experiment.config
    try:
        scheduler_config(experiment.config)
    except UserError as error:
        print(f"without a scheduler_config.json: {error}", flush=True)
        told = None
    write_folder(experiment.module, state.ema, folder, experiment.data.shape, told)
