"""What has to be measured in a process of its own: start-up, peak memory, devices, workers.

    told("start", of="ours", name="small", updates=2)     # runs it, and is told what it found
    python -m benchmarks.speed.child '["start", {"of": "ours", ...}]'

Imports nothing that takes time: what it takes is what is measured.
"""

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.speed.clock import now, timed

ROOT = Path(__file__).parents[2]
STAGES = ("import", "build", "initialize", "first call", "other calls")


def told(what: str, environment: dict[str, str] | None = None, **options: Any) -> dict[str, Any]:
    """What a process that does this and nothing else says of it.

    environment: on top of ours. Raises RuntimeError, with what it wrote, where it fails.
    """
    words = [sys.executable, "-m", "benchmarks.speed.child", json.dumps([what, options])]
    surroundings = os.environ | (environment or {})
    done = subprocess.run(words, cwd=ROOT, env=surroundings, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} failed:\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class Stages:
    """What was spent on one thing after the other, and the most memory held so far."""

    def __init__(self):
        self.last, self.found = now(), {}

    def __call__(self, name: str) -> None:
        """All since the last one was for this."""
        here = now()
        cost = dict(seconds=here.wall - self.last.wall, cpu=here.cpu - self.last.cpu)
        self.found[name] = cost | dict(peak_bytes=peak())
        self.last = now()


def peak() -> int:
    """The most memory that this process has held, in bytes.

    Of Linux's two answers VmHWM: `ru_maxrss` begins at what the parent held when it started us.
    """
    status = Path("/proc/self/status")
    lines = status.read_text().splitlines() if status.is_file() else []
    held = [int(line.split()[1]) for line in lines if line.startswith("VmHWM")]
    if held:
        return 1024 * held[0]
    held_here = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return held_here * (1 if sys.platform == "darwin" else 1024)


def start(of: str, name: str, updates: int) -> dict[str, Any]:
    """From nothing to so many updates of a work, stage by stage."""
    return {"ours": _start_ours, "theirs": _start_theirs}[of](name, updates)


def _start_ours(name, updates):
    from benchmarks.speed.works import config_of, saved

    with saved(name) as path:
        config, stages = config_of(name, path), Stages()
        from score_jax.surroundings import before_jax

        before_jax()
        import jax

        from score_jax import commands  # noqa: F401 - what the launcher imports
        from score_jax.build import build
        from score_jax.parallel import update_step
        from score_jax.training.loop import Batches
        from score_jax.training.state import create, make_update

        cache = Path(os.environ["XDG_CACHE_HOME"], "score_jax", "xla")  # as `main.run`
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
        stages(STAGES[0])
        experiment = build(config)
    update, calls = update_step(make_update(experiment)), experiment.training.steps_per_call
    batches, step = Batches(experiment), 0
    stages(STAGES[1])
    state = jax.block_until_ready(create(experiment))
    stages(STAGES[2])
    for stage, until in zip(STAGES[-2:], (calls, updates)):
        while step < until:
            state, metrics = update(state, batches(step, calls))
            jax.block_until_ready((state, metrics))
            step += calls
        stages(stage)
    return stages.found


def _start_theirs(name, updates):
    from benchmarks.speed.works import WORKS, config_of, examples

    config, data, stages = config_of(name), examples(name), Stages()
    from benchmarks.speed import theirs

    theirs.ready(WORKS[name].shape)
    stages(STAGES[0])
    module, net = theirs.made(config, WORKS[name].shape)
    run = theirs.training(module, net, config, data)
    stages(STAGES[2])
    calls = config["training"].get("steps_per_call", 1)
    for stage, times in zip(STAGES[-2:], (calls, updates - calls)):
        for _ in range(times):
            run()
        stages(stage)
    return stages.found


def read(batch: int, batches: int, workers: int) -> dict[str, Any]:
    """The peer's loader, which forks its workers, which JAX's threads do not survive."""
    from benchmarks.speed import theirs
    from benchmarks.speed.works import examples

    return dict(cost=timed(theirs.reading(examples("cifar"), batch, batches, workers)))


def devices(name: str, updates: int) -> dict[str, Any]:
    """Updates of a work on all devices there are."""
    import jax

    from benchmarks.speed import ours

    run, calls = ours.training(ours.experiment_of(name))
    run()
    cost = timed(lambda: [run() for _ in range(updates // calls)])
    return dict(devices=jax.device_count(), cost=cost)


WHAT: dict[str, Callable[..., dict[str, Any]]] = dict(start=start, read=read, devices=devices)

if __name__ == "__main__":
    what, options = json.loads(sys.argv[1])
    print(json.dumps(WHAT[what](**options)))
