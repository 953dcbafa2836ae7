"""The schedulers of diffusers, run from σ = 80 to 0.002 as well as they can be.

    from benchmarks.peers import peers, run
    x = run(peers()[0], 10, x, denoise, 80.0, 0.002)       # 10 network evaluations

Each in every configuration in which it may be best here: its orders, its kinds of formula, with
and without a lower order at the end, and its own noise levels ("linspace" of DDPM's linear betas,
which is the default; Karras, exponential, beta; with ρ where it can be chosen). All are asked for
one step more than counted and stopped before the last, the one to σ = 0, where that is how they
are built; so no evaluation is lost to it. Their tables are replaced by the same in float64, and
the network is told the σ that x has, not the nearest of a thousand timesteps.
"""

import importlib
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from score_jax.errors import UserError

LEVELS = 1000
Denoiser = Callable[[np.ndarray, float], np.ndarray]  # (x_0 + σ ε [n, D], σ) -> E[x_0 | x]


class Peer(NamedTuple):
    """A scheduler, its noise levels and its other options."""

    scheduler: str
    grid: str
    options: dict[str, Any] = {}

    @property
    def said(self) -> str:
        """Its options in words."""
        return " ".join(f"{k}={v}" for k, v in self.options.items())


def installed():
    """(torch, diffusers). Raises UserError where they are not."""
    try:
        importlib.import_module("scipy")  # some of theirs need it
        torch, diffusers = map(importlib.import_module, ("torch", "diffusers"))
    except ImportError as error:
        raise UserError(
            f"--peer diffusers needs torch and diffusers, and {error.name} is not installed; "
            "pip install torch diffusers scipy, or leave --peer out"
        ) from error
    diffusers.utils.logging.set_verbosity_error()
    return torch, diffusers


SPACINGS = {
    "linspace": {},
    "karras": dict(use_karras_sigmas=True),
    "exponential": dict(use_exponential_sigmas=True),
    "beta": dict(use_beta_sigmas=True),
}
EXPLODING = ("Euler", "Heun", "LMS", "KDPM2", "EDM")  # theirs with α = 1
ENDS_AT_MIN = ("DPMSolverMultistep", "DPMSolverSinglestep", "UniPC")


def peers() -> list[Peer]:
    """All of them."""
    found: list[Peer] = []

    def add(scheduler, *options, grids=tuple(SPACINGS)):
        found.extend(Peer(f"{scheduler}Scheduler", g, o) for o in options or ({},) for g in grids)

    add("EulerDiscrete")
    add("HeunDiscrete")
    add("KDPM2Discrete")
    add("LMSDiscrete", *(dict(order=k) for k in (2, 3, 4)))
    lower = [dict(lower_order_final=flag) for flag in (True, False)]
    orders: list[dict[str, Any]] = [dict(solver_order=k) for k in (2, 3)]
    heun = dict(solver_type="heun")
    for algorithm in ({}, dict(algorithm_type="dpmsolver")):
        kinds = [o | low | algorithm for o in orders for low in lower]
        add("DPMSolverMultistep", *kinds, *(heun | algorithm | low for low in lower))
        add("DPMSolverSinglestep", *(o | algorithm for o in orders))
    add("DEISMultistep", *(o | low for o in orders for low in lower))
    for k in (2, 3, 4):
        bh = [dict(solver_order=k, solver_type=kind) for kind in ("bh1", "bh2")]
        add("UniPCMultistep", *(o | low for o in bh for low in lower))
        add("UniPCMultistep", *(o | dict(predict_x0=False) for o in bh))
    for rho in (5.0, 7.0, 10.0):
        add("EDMEuler", dict(rho=rho), grids=("karras",))
        kinds = [{**o, **low, "rho": rho} for o in orders for low in lower]
        add("EDMDPMSolverMultistep", *kinds, grids=("karras",))
    kinds = [{**o, **low} for o in orders for low in lower]
    add("EDMDPMSolverMultistep", *kinds, grids=("exponential",))
    add("PNDM", grids=("linspace", "karras", "exponential"))
    add("IPNDM", grids=("linspace", "karras", "exponential"))
    return found


def levels(grid: str, n: int, high: float, low: float) -> np.ndarray:
    """n noise levels from high to low, for the schedulers that are told theirs."""
    u = np.linspace(0.0, 1.0, n)
    if grid == "linspace":  # DDPM's linear betas, in continuous time: σ² = exp(0.1 t + 9.95 t²) - 1
        time = lambda s: (np.sqrt(0.01 + 4 * 9.95 * np.log1p(s**2)) - 0.1) / (2 * 9.95)
        t = time(high) + u * (time(low) - time(high))
        return np.sqrt(np.expm1(0.1 * t + 9.95 * t**2))
    if grid == "karras":
        return (high ** (1 / 7) + u * (low ** (1 / 7) - high ** (1 / 7))) ** 7
    return np.exp(np.log(high) + u * (np.log(low) - np.log(high)))


def _made(peer: Peer, n: int, high: float, low: float):
    """Their scheduler, ready for n calls of the network, and the σ of each."""
    torch, diffusers = installed()
    name = peer.scheduler.removesuffix("Scheduler")
    options = {k: v for k, v in peer.options.items() if k != "order"}
    double = lambda values: torch.tensor(np.ascontiguousarray(values), dtype=torch.float64)
    kind = getattr(diffusers, peer.scheduler)
    if name == "IPNDM":
        scheduler = kind()
        scheduler.set_timesteps(n)
        sigmas = levels(peer.grid, n + 1, high, low)
        scheduler.betas = double(sigmas / np.hypot(1.0, sigmas))
        scheduler.alphas = double(1.0 / np.hypot(1.0, sigmas))
        return scheduler, sigmas[:-1]
    if name == "PNDM":  # asks once more than it steps
        scheduler = kind(skip_prk_steps=True, num_train_timesteps=n - 1)
        sigmas = levels(peer.grid, n, high, low)
        scheduler.alphas_cumprod = double(1.0 / (1.0 + sigmas[-2::-1] ** 2))
        scheduler.final_alpha_cumprod = double(1.0 / (1.0 + low**2))
        scheduler.set_timesteps(n - 1)
        return scheduler, sigmas[:-1][::-1][scheduler.timesteps.numpy()]
    if name.startswith("EDM"):
        ends = dict(sigma_min=low, sigma_max=high, sigma_schedule=peer.grid)
        scheduler = kind(**ends, **options)
        scheduler.set_timesteps(n + 1)
        scheduler.sigmas = scheduler.sigmas.double()
        return scheduler, scheduler.sigmas.numpy()
    evenly = peer.grid == "linspace" and name.startswith((*ENDS_AT_MIN, "DEIS"))
    if name.startswith(ENDS_AT_MIN):
        noise = options.get("algorithm_type") == "dpmsolver"
        options["final_sigmas_type"] = "sigma_min" if evenly or noise else "zero"
    if not name.startswith(("EDM", "KDPM2")):
        options["prediction_type"] = "epsilon"
    scheduler = kind(num_train_timesteps=LEVELS, **SPACINGS[peer.grid], **options)
    ladder = levels("linspace", LEVELS, high, low)[::-1]
    scheduler.alphas_cumprod = double(1.0 / (1.0 + ladder**2))
    twice = name.startswith(("Heun", "KDPM2"))
    scheduler.set_timesteps(n // 2 + 1 if twice else n if evenly else n + 1)
    scheduler.sigmas = scheduler.sigmas.double()
    sigmas = scheduler.sigmas.numpy().copy()
    if name.startswith("KDPM2"):
        scheduler.sigmas_interpol = scheduler.sigmas_interpol.double()
        sigmas[1::2] = scheduler.sigmas_interpol.numpy()[1::2]
    return scheduler, sigmas


def run(
    peer: Peer, evaluations: int, x: np.ndarray, denoise: Denoiser, high: float, low: float
) -> tuple[np.ndarray, int]:
    """(where it carries x [n, D] = high ε, the calls of denoise), at most `evaluations` calls."""
    torch, _ = installed()
    name = peer.scheduler.removesuffix("Scheduler")
    twice, calls = name.startswith(("Heun", "KDPM2")), 0
    n = evaluations // 2 * 2 if twice else evaluations
    scheduler, sigmas = _made(peer, n, high, low)
    if hasattr(scheduler, "set_begin_index"):
        scheduler.set_begin_index(0)
    exploding = name.startswith(EXPLODING)
    scale = lambda sigma: 1.0 if exploding else np.hypot(1.0, sigma)
    y = torch.from_numpy(x / scale(high))
    order = {k: peer.options[k] for k in ("order",) if k in peer.options}
    for t, sigma in zip(scheduler.timesteps[:n], sigmas):
        here = y.numpy() * scale(sigma)
        x0, calls = denoise(here, float(sigma)), calls + 1
        eps = torch.from_numpy((here - x0) / sigma)
        scheduler.scale_model_input(y, t)  # some note by it where they are
        if name.startswith("EDM"):  # theirs is c_skip x + c_out F
            s = torch.tensor(sigma)
            skipped = scheduler.precondition_outputs(y, torch.zeros_like(y), s)
            out = scheduler.precondition_outputs(torch.zeros_like(y), torch.ones_like(y), s)
            eps = (torch.from_numpy(x0) - skipped) / out
        elif name == "IPNDM":  # v
            alpha = 1.0 / np.hypot(1.0, sigma)
            eps = alpha * eps - sigma * alpha * torch.from_numpy(x0)
        y = scheduler.step(eps, t, y, **order).prev_sample
    return y.numpy() * scale(low), calls
