"""The scheduler_config.json of diffusers as sections of our config, and back.

Only what is the same here is taken over; of the rest each field is refused by its name.
"""

from collections.abc import Mapping
from typing import Any

from score_jax.errors import UserError, shown, unknown
from score_jax.interop.diffusers_config import accept, with_defaults

LADDER = dict(  # fields that all schedulers of a ladder of betas have
    num_train_timesteps=1000,
    beta_start=1e-4,
    beta_end=0.02,
    beta_schedule="linear",
    trained_betas=None,
    prediction_type="epsilon",
    thresholding=False,
    dynamic_thresholding_ratio=0.995,
    sample_max_value=1.0,
    timestep_spacing="leading",
    steps_offset=0,
    rescale_betas_zero_snr=False,
)
OLD = dict(tensor_format="pt", timestep_values=None, predict_epsilon=True)  # of first releases
CLIPPED = dict(clip_sample=True, clip_sample_range=1.0)
SOLVER = dict(
    timestep_spacing="linspace",
    solver_order=2,
    lower_order_final=True,
    use_karras_sigmas=False,
    use_exponential_sigmas=False,
    use_beta_sigmas=False,
    use_flow_sigmas=False,
    flow_shift=1.0,
    final_sigmas_type="zero",
    use_dynamic_shifting=False,
    time_shift_type="exponential",
)
DEFAULTS = {
    "DDPMScheduler": LADDER | OLD | CLIPPED | dict(variance_type="fixed_small"),
    "DDIMScheduler": LADDER | OLD | CLIPPED | dict(set_alpha_to_one=True),
    "PNDMScheduler": LADDER | OLD | dict(skip_prk_steps=False, set_alpha_to_one=False),
    "DPMSolverMultistepScheduler": LADDER
    | SOLVER
    | dict(
        algorithm_type="dpmsolver++",
        solver_type="midpoint",
        euler_at_final=False,
        use_lu_lambdas=False,
        lambda_min_clipped=-float("inf"),
        variance_type=None,
    ),
    "UniPCMultistepScheduler": LADDER
    | SOLVER
    | dict(
        predict_x0=True,
        solver_type="bh2",
        disable_corrector=[],
        solver_p=None,
        sigma_min=None,
        sigma_max=None,
        shift_terminal=None,
    ),
    "ScoreSdeVeScheduler": dict(
        num_train_timesteps=2000,
        snr=0.15,
        sigma_min=0.01,
        sigma_max=1348.0,
        sampling_eps=1e-5,
        correct_steps=1,
        tensor_format="pt",
    ),
}
VIEWS = {"epsilon": "eps", "sample": "x0", "v_prediction": "v"}
PROCESSES = {"linear": "ddpm", "scaled_linear": "ddpm_quadratic"}
VARIANCES = {
    "fixed_small": "small",
    "fixed_small_log": "small",
    "fixed_large": "large",
    "learned_range": "learned",
}
FREE = {  # fields that choose among what we have, or that say nothing beside the others
    *("num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "prediction_type"),
    *("dynamic_thresholding_ratio", "sample_max_value", "timestep_spacing", "clip_sample"),
    *("variance_type", "solver_order", "solver_type", "algorithm_type", "flow_shift"),
    *("time_shift_type", "skip_prk_steps", "tensor_format"),
    *("lower_order_final", "set_alpha_to_one"),
}


def scheduler_sections(
    scheduler: Mapping[str, Any], model: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    """{process, parameterization, loss, sampler} of a scheduler_config.json.

    model: the model's section. Steps: those of diffusers' pipelines, 50 for DDIM and PNDM, 25 for
    the solvers, all levels else. PNDM, which is not here, becomes deis, Adams-Bashforth as well.
    Where DDIM clips x0, here its noise follows (use_clipped_model_output there).
    Raises UserError that names the field for what is not the same here.
    """
    name = scheduler.get("_class_name")
    if not isinstance(name, str) or name not in DEFAULTS:
        raise unknown("scheduler of diffusers", name, DEFAULTS)
    given = with_defaults(f"scheduler_config.json ({name})", scheduler, DEFAULTS[name])
    score = name == "ScoreSdeVeScheduler"
    fourier = model.get("embedding") == "fourier"
    if fourier != score:
        raise UserError(
            f"diffusers' {name} and time_embedding_type = {'fourier' if fourier else 'positional'} "
            "do not go together: a network of Fourier features is told σ and puts out a score"
        )
    if model["centered"] == score:
        raise UserError(
            f"diffusers' center_input_sample = {not model['centered']} with {name}, whose images "
            f"lie in {'[0, 1]' if score else '[-1, 1]'}, is not supported here; only {score}"
        )
    levels = given["num_train_timesteps"]
    if type(levels) is not int or levels < 2:
        raise UserError(f"diffusers' num_train_timesteps = {shown(levels)}: expected at least 2")
    return _exploding(given) if score else _ladder(name, given, model.get("outputs", 1) == 2)


def _exploding(given):
    return dict(
        process=dict(name="ve", sigma_min=given["sigma_min"], sigma_max=given["sigma_max"]),
        parameterization=dict(view="scaled_score", condition="log_sigma"),
        loss=dict(name="denoising", law="uniform", view="eps", weight="one", reduction="mean"),
        sampler=dict(
            name="predictor_corrector",
            predictor="reverse_diffusion",
            corrector="langevin",
            corrections=given["correct_steps"],
            snr=given["snr"],
            steps=given["num_train_timesteps"] - 1,  # and the denoising one
            grid="uniform",
            end=given["sampling_eps"],
        ),
    )


def _ladder(name, given, learned):
    fixed = {field: (DEFAULTS[name][field],) for field in given if field not in FREE}
    if not given.get("clip_sample"):
        fixed.pop("clip_sample_range", None)
    if "predict_epsilon" in given and not given["predict_epsilon"]:
        fixed.pop("predict_epsilon")
        given["prediction_type"] = "sample"
    choices = dict(
        beta_schedule=tuple(PROCESSES),
        prediction_type=tuple(VIEWS),
        timestep_spacing=("leading", "linspace", "trailing"),
    )
    accept(given, **fixed, **choices)
    view = VIEWS[given["prediction_type"]]
    loss = (
        dict(name="hybrid")
        if learned
        else dict(name="denoising", law="ladder", view=view, weight="one", reduction="mean")
    )
    return dict(
        process=dict(
            name=PROCESSES[given["beta_schedule"]],
            beta_min=given["beta_start"],
            beta_max=given["beta_end"],
            levels=given["num_train_timesteps"],
        ),
        parameterization=dict(view=view, condition="level", learned_variance=learned),
        loss=loss,
        sampler=_sampler(name, given, learned) | dict(clip=bool(given.get("clip_sample", False))),
    )


def _sampler(name, given, learned):
    levels = given["num_train_timesteps"]
    if name == "DDPMScheduler":
        accept(given, variance_type=("learned_range",) if learned else tuple(VARIANCES)[:3])
        variance = VARIANCES[given["variance_type"]]
        return dict(name="ancestral", steps=levels, grid="ladder", variance=variance)
    if name == "DDIMScheduler":
        accept(given, set_alpha_to_one=(True,))
        return dict(name="ddim", **_grid(given, 50))
    if name == "PNDMScheduler":
        return dict(name="deis", end=0.0, **_grid(given, 50))
    if name == "UniPCMultistepScheduler":
        accept(given, solver_type=("bh1", "bh2"))
        order = dict(order=given["solver_order"], variant=given["solver_type"])
        return dict(name="unipc", **order, **_solver_grid(given))
    accept(
        given,
        variance_type=("learned_range",) if learned else (None,),
        algorithm_type=("dpmsolver++", "sde-dpmsolver++"),
        solver_type=("midpoint",),
        solver_order=(2, 3) if given["algorithm_type"] == "dpmsolver++" else (2,),
    )
    eta = float(given["algorithm_type"] == "sde-dpmsolver++")
    third = given["solver_order"] == 3
    which = dict(name="dpm_solver_pp_3m", common=True) if third else dict(name="dpm_solver_pp_2m")
    return dict(**which, eta=eta, **_solver_grid(given))


def _grid(given, steps):
    """Their timesteps, 0 .. N-1, as levels, 1 .. N, the first of which is the last."""
    levels, spacing = given["num_train_timesteps"], given["timestep_spacing"]
    steps = min(steps, levels)
    if spacing == "leading":
        first = (steps - 1) * (levels // steps) + 1
        return dict(steps=steps, grid="ladder", start=first / levels)
    return dict(steps=steps, grid="ladder" if spacing == "linspace" else "uniform")


def _solver_grid(given, steps=25):
    """The same of the solvers, whose last step is one from far above the first level to 0.

    But for trailing theirs are one level noisier.
    """
    levels = given["num_train_timesteps"]
    steps = min(steps, levels - 1)
    leading = given["timestep_spacing"] == "leading"
    start = steps * (levels // (steps + 1)) / levels if leading else 1.0
    return dict(steps=steps, grid="uniform", start=start, end=0.0)


def scheduler_config(sections: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """DDPMScheduler's scheduler_config.json of our config, for a network that knows its levels.

    Raises UserError for what a DDPMScheduler cannot be.
    """
    process, asked, sampler = (
        sections.get(name, {}) for name in ("process", "parameterization", "sampler")
    )
    schedules = {ours: theirs for theirs, ours in PROCESSES.items()}
    types = {ours: theirs for theirs, ours in VIEWS.items()}
    view, condition = asked.get("view", "eps"), asked.get("condition", "time")
    for what, value, known in (
        ("process.name", process.get("name"), schedules),
        ("parameterization.view", view, types),
        ("parameterization.condition", condition, ("level",)),
    ):
        if value not in known:
            raise UserError(
                f"config.{what} = {value!r}: a scheduler of diffusers has {' or '.join(known)}; "
                "export the network alone"
            )
    variance = sampler.get("variance", "small")
    if asked.get("learned_variance"):
        variance = "learned"
    kinds = {"large": "fixed_large", "learned": "learned_range"}
    return {"_class_name": "DDPMScheduler"} | dict(
        num_train_timesteps=process["levels"],
        beta_start=process["beta_min"],
        beta_end=process["beta_max"],
        beta_schedule=schedules[process["name"]],
        prediction_type=types[view],
        clip_sample=bool(sampler.get("clip", False)),
        variance_type=kinds.get(variance, "fixed_small"),
    )
