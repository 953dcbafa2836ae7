"""The commands behind launch.py: flags, modes, exit statuses.

Exit status 0: done. 2: a mistake of the user's, or more than the memory holds, one message. 75:
stopped by SIGTERM, all saved, to be queued again. 130: stopped by Ctrl-C, all saved. 1: anything
else.
"""

import contextlib
import errno
import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

from absl import flags

from score_jax import config as configs
from score_jax.errors import CannotWrite, UserError, unknown
from score_jax.signals import REQUEUE, Interrupted, exit_status
from score_jax.surroundings import before_jax

LESS = (
    "what was saved is whole. A smaller training.batch_size or evaluation.batch_size needs less, "
    "and so do more training.microbatches, model.remat = True and model.dtype = 'bfloat16'"
)
# What is wrong with the machine, not with the program.
THE_MACHINE_S = {
    getattr(errno, name)
    for name in "ENOSPC EDQUOT EFBIG EACCES EPERM EROFS EIO EPIPE ESTALE EMFILE".split()
}
OPTIONAL = ("likelihood", "test", "guidance", "classifier")  # sections: a config may leave them out
FIRST = ("ncsn_toy", "ddpm_digits", "ddpm_mnist", "photos")  # configs to start from
MODES = ("train", "classifier", "sample", "evaluate", "likelihood", "report", "reference")


class Command(NamedTuple):
    """A command line. hosts: which of several processes this is, see `hosts.start`."""

    config: Any
    workdir: Path
    mode: str
    replay_step: int | None
    hosts: dict[str, Any]


def main(argv: list[str]) -> int:
    """Runs one command line; returns its exit status.

    Where several processes make the run and this one fails, it ends here and now, with its
    status: the others then end too, within seconds, instead of waiting for it.
    """
    with contextlib.suppress(ValueError):  # no signal arrives in another thread
        signal.signal(signal.SIGTERM, _terminated)
    try:
        status = status_of(lambda: _launch(argv))
    except BaseException as error:
        if not _is_one_of_several() or isinstance(error, SystemExit):
            raise
        traceback.print_exc()
        status = 1
    if status and _is_one_of_several():
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    return status


def leave(status: int) -> NoReturn:
    """Ends the process with main's status: at once where it was stopped.

    JAX would first wait for what its devices still compute, and nobody does any more.
    """
    if status in (REQUEUE, 130):
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    sys.exit(status)


def _is_one_of_several() -> bool:
    jax = sys.modules.get("jax")
    return jax is not None and jax.distributed.is_initialized() and jax.process_count() > 1


def _launch(argv: list[str]) -> None:
    command = parse(argv)
    _start(command.hosts)
    run(command.config, command.workdir, command.mode, command.replay_step)


def status_of(work: Callable[[], Any]) -> int:
    """Does the work; its exit status, after one message where it failed for a known reason."""
    try:
        work()
        return 0
    except UserError as error:
        if not getattr(error, "said", False):
            print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"\n{str(error) or 'stopped'}", file=sys.stderr)
        return exit_status(error)
    except OSError as error:
        if not isinstance(error, CannotWrite) and error.errno not in THE_MACHINE_S:
            raise
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = next(iter(str(error).splitlines()), "no more is known")[:200]
        print(f"error: out of memory ({reason}); {LESS}", file=sys.stderr)
        return 2


def _terminated(number, frame):
    raise Interrupted("stopped", number)


def split_overrides(argv: list[str]) -> tuple[list[str], list[str]]:
    """(every <section>.<option>=<value> of --config.<...>, the other words but the first).

    Raises UserError for one without a value.
    """
    overrides, rest = [], []
    for word in argv[1:]:
        if word.startswith("--config."):
            if "=" not in word:
                raise UserError(f"{word} needs a value: {word}=<value>")
            overrides.append(word.removeprefix("--config."))
        else:
            rest.append(word)
    return overrides, rest


def configured(config: Any, overrides: list[str]) -> Any:
    """The config, a ConfigDict, with what `split_overrides` found set in it, see `override`."""
    with config.unlocked():
        for section in OPTIONAL:
            if section not in config:
                config[section] = {}
    given = [word.split("=", 1) for word in overrides]
    for name, text in sorted(given, key=lambda pair: not pair[0].endswith(".name")):
        configs.override(config, name, text, _known_options)
    return config


def parse(argv: list[str]) -> Command:
    """What a command line asks for. Raises UserError for what it cannot mean, SystemExit for -h."""
    overrides, rest = split_overrides(argv)
    values = flags.FlagValues()
    flags.DEFINE_string(
        "config", None, "the experiment: a Python file, or a config.json", flag_values=values
    )
    flags.DEFINE_string("workdir", None, "its folder; runs/<config name>", flag_values=values)
    flags.DEFINE_string("mode", "train", ", ".join(MODES), flag_values=values)
    flags.DEFINE_integer("replay_step", None, "an update to look at", flag_values=values)
    flags.DEFINE_string("coordinator", None, "HOST:PORT of process 0", flag_values=values)
    flags.DEFINE_integer("num_processes", None, "of this run", flag_values=values)
    flags.DEFINE_integer("process_id", None, "which of them", flag_values=values)
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
    if values.replay_step is not None and values.mode != "train":
        raise UserError(f"--replay_step replays a step of training, not of {values.mode}")

    config = configured(configs.load(values.config), overrides)
    workdir = os.path.expanduser(values.workdir or Path("runs", Path(values.config).stem))
    hosts = dict(
        coordinator=values.coordinator, processes=values.num_processes, process=values.process_id
    )
    return Command(config, Path(workdir), values.mode, values.replay_step, hosts)


def _known_options(section: str, name: object) -> dict[str, Any] | None:
    before_jax()
    from score_jax.build import known_options  # not light

    return known_options(section, name)


def _usage(values) -> str:
    here = [str(configs.CONFIGS / f"{name}.py") for name in FIRST]
    first = ", ".join(path for path in here if Path(path).is_file())
    names = f"one of configs/*.py (docs/configs.md), such as\n             {first}"
    lines = [
        "usage: python launch.py --config=FILE [--workdir=FOLDER] [--mode=MODE]",
        "                        [--config.<section>.<option>=<value> ...]",
        f"  --config   the experiment: {names if first else 'a Python file with a get_config()'}",
        "  --workdir  its folder (runs/<config name>); a run found there goes on",
        f"  --mode     {', '.join(MODES)}",
        "             (train, which samples when it is done)",
        "  --replay_step=N   make update N of the run again and show what happened in it",
        "  --coordinator=HOST:PORT --num_processes=N --process_id=I   one of N processes that",
        "             work together; SLURM, MPI, Cloud TPU and GKE tell this by themselves",
    ]
    return "\n".join(lines)


def _start(hosts: dict[str, Any]) -> None:
    """Joins the other processes of the run, of which the leader alone prints."""
    before_jax()
    from score_jax import hosts as processes

    processes.start(**hosts)
    if not processes.leads():
        sys.stdout = open(os.devnull, "w")


def run(config, workdir: Path, mode: str = "train", replay_step: int | None = None) -> None:
    """What `python launch.py` does, for a notebook: runs one mode, or replays one step.

    config: a ConfigDict or nested dicts. Raises UserError for a mistake in it.
    """
    before_jax()
    import jax  # after the flags, whose mistakes then show at once

    from score_jax import commands
    from score_jax.build import build
    from score_jax.hosts import from_leader, leader_first
    from score_jax.parallel import check_divides
    from score_jax.workdir import open_workdir

    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "score_jax", "xla")
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)  # schedules are many
    experiment = leader_first(lambda: build(config))
    mode = mode if replay_step is None else "replay"
    if mode not in ("sample", "report") and not len(experiment.data.examples):
        raise UserError(
            f"config.data.name = {experiment.data.name!r} holds no images: it is for --mode=sample "
            f"only; give the data to {mode} with"
        )
    if mode == "train":
        check_divides(experiment.training.batch_size, experiment.training.microbatches)
    if mode == "reference":  # of data, whatever run they are for
        commands.reference(experiment)
        return
    if mode == "classifier":  # in a folder of its own
        commands.classifier(experiment, workdir)
        from_leader()
        return
    with open_workdir(workdir, experiment.config, mode, experiment.data):
        print(commands.describe(experiment, workdir), flush=True)
        at: Any = replay_step
        command: dict[str, Callable[..., Any]] = {
            "train": commands.train,
            "sample": commands.sample,
            "evaluate": commands.evaluate,
            "likelihood": commands.likelihood,
            "report": commands.report,
            "replay": lambda experiment, workdir: commands.replay(experiment, workdir, at),
        }
        command[mode](experiment, workdir)
        from_leader()  # nobody leaves while another still writes
