"""The commands behind launch.py: flags, modes, exit statuses.

Exit status 0: done. 2: a mistake of the user's, one message. 128 + n: stopped by signal n,
all saved. 1: anything else.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

from absl import flags

from score_jax import config as configs
from score_jax.errors import UserError, unknown

MODES = ("train", "sample", "evaluate", "likelihood")


def main(argv: list[str]) -> int:
    """Runs one command line; returns its exit status."""
    try:
        run(*parse(argv))
        return 0
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"\n{error or 'stopped'}", file=sys.stderr)
        return 128 + getattr(error, "signal", signal.SIGINT)
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


def parse(argv: list[str]):
    """(config, workdir, mode) of a command line. Raises UserError for what it cannot mean."""
    overrides, rest = [], []
    for word in argv[1:]:
        if word.startswith("--config."):
            if "=" not in word:
                raise UserError(f"{word} needs a value: {word}=<value>")
            overrides.append(word.removeprefix("--config."))
        else:
            rest.append(word)

    values = flags.FlagValues()
    flags.DEFINE_string("config", None, "the experiment: a Python file", flag_values=values)
    flags.DEFINE_string("workdir", None, "its folder; runs/<config name>", flag_values=values)
    flags.DEFINE_string("mode", "train", ", ".join(MODES), flag_values=values)
    flags.DEFINE_bool("help", False, "show this", short_name="h", flag_values=values)
    try:
        stray = values([argv[0], *rest])[1:]
    except flags.Error as error:
        raise UserError(f"{error}\n{_usage(values)}") from error
    if values.help:
        print(_usage(values))
        raise SystemExit(0)
    if stray:
        raise UserError(f"what is '{stray[0]}'? Options start with --\n{_usage(values)}")
    if values.config is None:
        raise UserError(f"which experiment? Give --config\n{_usage(values)}")
    if values.mode not in MODES:
        raise unknown("--mode", values.mode, MODES)

    config = configs.load(values.config)
    if "likelihood" not in config:  # the section that a config may leave out
        with config.unlocked():
            config["likelihood"] = {}
    given = [word.split("=", 1) for word in overrides]
    for name, text in sorted(given, key=lambda pair: not pair[0].endswith(".name")):
        configs.override(config, name, text, _known_options)
    workdir = values.workdir or Path("runs", Path(values.config).stem)
    return config, Path(workdir), values.mode


def _known_options(section: str, name: object) -> set[str] | None:
    from score_jax.build import known_options  # needed for a new name only, and not light

    return known_options(section, name)


def _usage(values) -> str:
    names = ", ".join(sorted(str(path) for path in Path("configs").glob("*.py")))
    lines = [
        "usage: python launch.py --config=FILE [--workdir=FOLDER] [--mode=MODE]",
        "                        [--config.<section>.<option>=<value> ...]",
        f"  --config   the experiment: {names or 'a Python file with a get_config()'}",
        "  --workdir  its folder (runs/<config name>); a run found there goes on",
        f"  --mode     {', '.join(MODES)} (train, which samples when it is done)",
    ]
    return "\n".join(lines)


def _share_arenas() -> None:
    """Two memory arenas for all threads in place of eight a core, where libc is glibc.

    XLA's threads each fill an arena of their own and keep it, which costs small runs some
    hundred megabytes. Has to come before the first thread.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").mallopt(_M_ARENA_MAX, 2)


_M_ARENA_MAX = -8  # malloc.h


def run(config, workdir: Path, mode: str = "train") -> None:
    """What `python launch.py` does, for a notebook: runs one mode.

    config: a ConfigDict or nested dicts. Raises UserError for a mistake in it.
    """
    _share_arenas()
    platforms = os.environ.get("JAX_PLATFORMS")
    if platforms and "cpu" not in platforms.split(","):
        os.environ["JAX_PLATFORMS"] = f"{platforms},cpu"  # schedules are made on the host
    import jax  # after the flags, whose mistakes then show at once

    from score_jax import commands
    from score_jax.build import build
    from score_jax.parallel import check_divides
    from score_jax.workdir import open_workdir

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "score_jax", "xla")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    experiment = build(config)
    if mode == "train":
        check_divides(experiment.training.batch_size)
    open_workdir(workdir, experiment.config, mode, experiment.data)
    print(commands.describe(experiment, workdir), flush=True)
    command = {
        "train": commands.train,
        "sample": commands.sample,
        "evaluate": commands.evaluate,
        "likelihood": commands.likelihood,
    }
    command[mode](experiment, workdir)
