"""A folder of a finished run, made by hand, whose every number is known."""

import json

import numpy as np

from score_jax import plotting

EPS = [0.02, 0.3, 0.97]
MADE = {
    "step": 400,
    "parameters": "ema",
    "samples": 5,
    "sampler": {"name": "ancestral"},
    "network_evaluations_per_sample": 12.0,
}
CONFIG = {
    "data": {"name": "digits"},
    "process": {"name": "cosine"},
    "model": {"name": "unet", "dropout": 0.1},
    "loss": {"name": "denoising"},
    "sampler": {"name": "ancestral", "steps": 12},
    "training": {"steps": 400, "learning_rate": 0.5, "batch_size": 16},
}
SAME = {
    "examples": 718,
    "real_against_real": {"frechet_distance": 8.25},
    "samples_against_real": {"frechet_distance": 14.5},
}


def start(day, mode, changed):
    return {
        "time": f"2026-03-0{day}T10:20:30+00:00",
        "mode": mode,
        "argv": [f"--mode={mode}"],
        "python": "3.11.7",
        "versions": {"jax": "0.10.2"},
        "devices": ["TPU v4", "TPU v4"],
        "processes": 1,
        "changed": changed,
    }


def held_out(step, scale):
    return {
        "step": step,
        "data": "digits/test",
        "examples": 360,
        "loss": 0.5 * scale,
        "standard_error": 0.01,
        "logsnr": [-8.0, 0.0, 8.0],
        "eps_error": [scale * e for e in EPS],
        "eps_error_standard_error": [0.001, 0.01, 0.02],
    }


def evaluation(kind="classifier", **more):
    return {
        "features": {"kind": kind, "name": "the features given", "dimensions": 64, "sha256": None},
        "reference": {"data": "digits/train", "examples": 1437},
        "samples": 1437,
        "metrics": {
            "fid" if kind == "inception" else "frechet_distance": {
                "value": 12.3456,
                "standard_error": 0.412,
            },
            "coverage": 0.75,
        },
        "same_number": SAME,
        "left_out": {"density": "too few examples"},
        "protocol": {"resize": "bilinear"},
        "made": MADE,
    } | more


def pictures(folder, seed=0):
    rng = np.random.default_rng(seed)
    draw = lambda n: plotting.grid(rng.integers(0, 256, (n, 8, 8, 1), dtype=np.uint8))
    for name, n in (("step_0000100", 4), ("step_0000200", 4), ("step_0001000", 4), ("final", 5)):
        plotting.save(draw(n), folder / f"{name}.png")
    plotting.save(draw(5), folder / "data.png")
    plotting.save(draw(9), folder / "trajectory.png")
    plotting.save(draw(6), folder / "neighbors.png")


def write(folder, name, value):
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = value if name.endswith(".jsonl") else [value]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def make_run(folder, **replaced):
    """Fills the folder. replaced: what some files hold instead, by name without suffix."""
    files = {
        "config.json": CONFIG,
        "data.json": {"data": {"examples": 1437, "shape": [8, 8, 1], "sha256": "ab"}},
        "starts.jsonl": [
            start(1, "train", {}),
            start(2, "evaluate", {"training.learning_rate": [0.25, 0.5]}),
        ],
        "metrics.jsonl": [
            {"step": 100 * i, "loss": 1 / i, "grad_norm": 2.0, "non_finite": int(i == 3),
             "learning_rate": 0.5, "steps_per_second": 7.0}
            for i in range(1, 5)
        ],
        "held_out.jsonl": [held_out(100, 2.0), held_out(400, 1.0)],
        "samples.json": MADE,
        "evaluation.json": evaluation(),
        "likelihood.json": {
            "bits_per_dim": 3.4567, "standard_error": 0.0213, "examples": 360,
            "standard_error_of": {"images": 0.021, "probes": 0.0031, "dequantization": None},
            "data": "digits/test", "dimensions": 64, "network_evaluations_per_example": 142.5,
            "made": MADE,
        },
        "bound.json": {
            "bits_per_dim": 4.0, "standard_error": 0.05, "prior": 0.125, "reconstruction": 1.875,
            "transitions": [1.5, 0.5], "transitions_standard_error": [0.1, 0.1],
            "logsnr": [6.0, 0.0, -6.0], "examples": 360, "data": "digits/test",
            "dimensions": 64, "made": MADE,
        },
        "samples/trajectory.json": {
            "samples": 3, "times": [1.0, 0.5, 0.0], "logsnr": [-9.0, 0.0, 9.0], "made": MADE
        },
        "samples/neighbors.json": {
            "samples": 3, "neighbors": 1, "features": "pixels", "distances": [[2.0], [3.0], [7.0]]
        },
    }  # fmt: skip
    for name, value in files.items():
        write(folder, name, replaced.get(name.split(".")[0], value))
    pictures(folder / "samples")
    return folder
