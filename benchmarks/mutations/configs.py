"""Good configs, and what a hand can do to one."""

import contextlib
import copy
from types import UnionType
from typing import Any, get_args

from hypothesis import strategies as st

from score_jax import sections
from score_jax.build import FAMILIES
from score_jax.options import options_of
from score_jax.parameterization import Parameterization

Config = dict[str, dict[str, Any]]

# --- good configs ------------------------------------------------------------------------

TRAINING = dict(steps=2, batch_size=8, log_every=1, checkpoint_every=2, sample_every=2)
EVALUATION = dict(samples=8, batch_size=8, features="none")
LEVELS = dict(beta_min=1e-3, beta_max=0.3, levels=6)

# (process, parameterization, loss, sampler) for points in the plane; each name occurs once.
CHOICES = (
    (
        dict(name="ncsn", sigma_min=0.05, sigma_max=5.0, levels=6),
        dict(view="eps", condition="level"),
        dict(name="denoising", law="ladder"),
        dict(name="ancestral", steps=6, grid="ladder"),
    ),
    (
        dict(name="ve", sigma_min=0.05, sigma_max=5.0),
        dict(view="eps", condition="log_sigma"),
        dict(name="denoising", view="score", weight="sigma2", reduction="half_sum"),
        dict(name="annealed_langevin", grid="uniform", levels=2, steps_per_level=2),
    ),
    (
        dict(name="vp", beta_min=0.1, beta_max=20.0),
        dict(view="eps", condition="time"),
        dict(name="denoising", law="importance", view="score", weight="likelihood"),
        dict(name="predictor_corrector", corrector="ald", steps=3, end=0.01),
    ),
    (
        dict(name="subvp", beta_min=0.1, beta_max=20.0),
        dict(view="v", condition="time"),
        dict(name="implicit", weight="sigma2"),
        dict(name="euler_maruyama", steps=3, end=0.01),
    ),
    (
        dict(name="cosine", logsnr_max=12.0),
        dict(view="x0", condition="time"),
        dict(name="denoising", view="v"),
        dict(name="dpm_solver_pp_2m", steps=3),
    ),
    (
        dict(name="edm", sigma_min=0.01, sigma_max=40.0),
        dict(view="F", condition="log_sigma"),
        dict(name="denoising", law="lognormal", view="F"),
        dict(name="edm_stochastic", steps=3),
    ),
    (
        dict(name="flow"),
        dict(view="velocity", condition="time"),
        dict(name="denoising", view="velocity", law="logit_normal"),
        dict(name="heun", steps=3),
    ),
    (
        dict(name="ncsnv2", sigma_max=5.0, dimensions=2),
        dict(view="score", condition="level"),
        dict(name="sliced", law="ladder", weight="sigma2"),
        dict(name="unipc", steps=3, end=0.1),
    ),
    (
        dict(name="ddpm", **LEVELS),
        dict(view="eps", condition="level"),
        dict(name="variational", decoder="gaussian"),
        dict(name="ddim", grid="ladder", steps=6),
    ),
    (
        dict(name="ddpm_quadratic", **LEVELS),
        dict(view="eps", condition="level", learned_variance=True),
        dict(name="hybrid", decoder="gaussian"),
        dict(name="ancestral", grid="ladder", steps=6, variance="learned"),
    ),
    (
        dict(name="ve", sigma_min=0.05, sigma_max=5.0),
        dict(view="score", condition="time"),
        dict(name="explicit", density="three_modes", weight="sigma2"),
        dict(name="mala", steps=3, end=0.1),
    ),
    (
        dict(name="vp"),
        dict(view="score", condition="time"),
        dict(name="finite_difference", weight="sigma2"),
        dict(name="adaptive", max_evaluations=50),
    ),
    (
        dict(name="vp"),
        dict(view="eps", condition="time"),
        dict(name="denoising"),
        dict(name="dpm_solver_3", steps=2),
    ),
    (
        dict(name="edm"),
        dict(view="F", condition="log_sigma"),
        dict(name="denoising", view="x0", weight="edm"),
        dict(name="deis", steps=3),
    ),
)


def on_points() -> list[Config]:
    """Small good configs for points in the plane, one of each of CHOICES."""
    return [
        dict(
            data=dict(name="toy", density="three_modes", size=64),
            process=process,
            model=dict(name="mlp", width=8, depth=1)
            | (dict(outputs=2) if "learned_variance" in parameterization else {}),
            parameterization=parameterization,
            loss=loss,
            sampler=sampler,
            training=TRAINING,
            evaluation=EVALUATION,
        )
        for process, parameterization, loss, sampler in CHOICES
    ]


def on_images() -> list[Config]:
    """A small U-Net and a small RefineNet, on digits."""
    process, parameterization, loss, sampler = CHOICES[0]
    unet = dict(name="unet", features=4, multipliers=(1,), blocks=1, attention=())
    refinenet = dict(name="refinenet", features=2, levels=process["levels"])
    sections: dict[str, Any] = dict(
        process=process,
        parameterization=parameterization,
        loss=loss,
        sampler=sampler,
        training=TRAINING,
        evaluation=EVALUATION,
    )
    return [
        dict(data=dict(name="digits", flip=True), model=unet, **sections),
        dict(data=dict(name="digits", centered=False), model=refinenet, **sections),
    ]


GOOD = [*on_points(), *on_points(), *on_images()]  # twice: what is drawn is mostly quick

# --- mutations of a config ---------------------------------------------------------------

NASTY: tuple[float, ...] = (0, -1, 1, 2, 1e308, 10**30, float("nan"), float("inf"))
NASTY += (float("-inf"), -0.0, 2**31, 2**32, 2**63, 1e-300, 0.5, 1.5, 1e-45, -(10**400), 1e16)
NASTY += (65537,)
OTHER_TYPES: tuple[Any, ...] = (
    None,
    "",
    "3",
    "none",
    True,
    False,
    [],
    [1],
    (),
    (1, "a"),
    {},
    {"name": "vp"},
    {"a": {"b": [None]}},
    [[1, 2], [3]],
    b"bytes",
    1j,
)
STRANGE = (
    "ünï-𝕔ødé",
    "\u202egnp.exe",
    "\x00",
    "\ud800",
    "a\nb",
    "%s{0}%(x)d",
    "x" * 300,
    "y" * 100_000,
    "../../etc/passwd",
    "~",
    ".",
    "/dev/zero",
    "__class__",
    "\N{SNOWMAN}" * 2000,
)


def known(name: str, section: dict[str, Any]) -> dict[str, Any]:
    """{option: its type} of a section, also of those that it does not give."""
    own = dict(
        training=sections.Training,
        evaluation=sections.Evaluation,
        likelihood=sections.Likelihood,
        parameterization=Parameterization,
    )
    if name in own:
        makers: list[Any] = [own[name]]
    else:
        table, shared = FAMILIES.get(name, ({}, None))
        chosen = section.get("name")
        makers = [shared, table.get(chosen) if isinstance(chosen, str) else None]
    found: dict[str, Any] = {}
    for maker in filter(None, makers):
        found |= {option: p.annotation for option, p in options_of(maker).items()}
    return found


def _is(annotation: Any, *kinds: type) -> bool:
    options = get_args(annotation) if isinstance(annotation, UnionType) else (annotation,)
    return any(kind in options for kind in kinds)


def _place(draw, config, kinds=(int, float, str, bool)) -> Any:
    """A section, and an option in it, given or not, of one of these types; None if none is."""
    places = [
        (name, option)
        for name, section in config.items()
        if isinstance(section, dict)
        for option, kind in known(name, section).items()
        if _is(kind, *kinds) or (set(kinds) > {int, float} and not isinstance(kind, type))
    ]
    return draw(st.sampled_from(places)) if places else None


def _given(draw, config) -> Any:
    """A section, and an option that it gives; None if none does."""
    places = [(n, o) for n, s in config.items() if isinstance(s, dict) for o in s]
    return draw(st.sampled_from(places)) if places else None


def _drop_option(draw, config):
    section, option = _given(draw, config)
    del config[section][option]
    return f"{section}.{option} left out"


def _drop_section(draw, config):
    section = draw(st.sampled_from(sorted(config)))
    del config[section]
    return f"{section} left out"


def _add_option(draw, config):
    section = draw(st.sampled_from(sorted(config)))
    name = draw(st.sampled_from(("more", "nam", "items", "parent", "get", "a b", "steps", "üb")))
    config[section][name] = draw(st.sampled_from((1, "x", None, {})))
    return f"{section}.{name} added"


def _add_section(draw, config):
    name = draw(
        st.sampled_from(("extra", "optimizer", "Data", "to_dict", "likelihood", "x" * 3000))
    )
    value = draw(st.sampled_from(({}, {"name": "vp"}, {"examples": 10}, 3, None, [1])))
    config[name] = value
    return f"section {name[:30]} = {value!r} added"


def _misspell(draw, config):
    def wrong(word):
        at = draw(st.integers(0, max(len(word) - 1, 0)))
        return (
            word[:at]
            + draw(st.sampled_from(("", "_", "x", word[at : at + 1] * 2)))
            + word[at + 1 :]
        )

    section, option = _given(draw, config)
    value = config[section][option]
    what = draw(st.sampled_from(("section", "option", "value")))
    if what == "value" and isinstance(value, str):
        config[section][option] = wrong(value)
        return f"{section}.{option} = {config[section][option]!r}"
    if what == "section":
        new = wrong(section)
        config[new] = config.pop(section)
        return f"{section} spelt {new!r}"
    new = wrong(option)
    config[section][new] = config[section].pop(option)
    return f"{section}.{option} spelt {new!r}"


def _set(config, place, value):
    section, option = place
    config[section][option] = value
    return f"{section}.{option} = {repr(value)[:60]}"


def _another_type(draw, config):
    value = copy.deepcopy(draw(st.sampled_from(OTHER_TYPES)))
    return _set(config, _place(draw, config), value)


def _nasty_number(draw, config):
    """A number that may have the option's type and can hardly be meant; any, one time in four."""
    place = _place(draw, config, (int, float))
    kind = known(place[0], config[place[0]])[place[1]]
    whole = _is(kind, int) and draw(st.integers(0, 3)) > 0
    numbers = [number for number in NASTY if isinstance(number, int) or not whole]
    return _set(config, place, draw(st.sampled_from(numbers)))


def _huge(draw, config):
    return _set(config, _place(draw, config, (int,)), 10 ** draw(st.integers(6, 12)))


def _strange_words(draw, config):
    return _set(config, _place(draw, config, (str,)), draw(st.sampled_from(STRANGE)))


def _value_of_another(draw, config):
    section, option = _given(draw, config)
    return _set(config, _given(draw, config), copy.deepcopy(config[section][option]))


def _swap_sections(draw, config):
    one, other = draw(st.lists(st.sampled_from(sorted(config)), min_size=2, max_size=2))
    config[one], config[other] = config[other], config[one]
    return f"{one} and {other} swapped"


def _families():
    return {name: sorted(table) for name, (table, _) in FAMILIES.items()}


def _other_family_s_name(draw, config):
    one, other = draw(st.lists(st.sampled_from(sorted(_families())), min_size=2, max_size=2))
    section = config.setdefault(one, {})
    section["name"] = draw(st.sampled_from(_families()[other]))
    return f"{one}.name = {section['name']!r}, of {other}"


def _other_member(draw, config):
    """Another member of the family: with the old one's options, none, or those it must have."""
    family = draw(st.sampled_from(sorted(_families())))
    name = draw(st.sampled_from([n for n in _families()[family] if n != "tfds"]))
    how = draw(st.sampled_from(("the old options", "no options", "its options", "all options")))
    section = (
        {"name": name} if how != "the old options" else config.get(family, {}) | {"name": name}
    )
    if how in ("its options", "all options"):
        sensible = {int: 4, float: 0.5, str: "three_modes", bool: True}
        for option, parameter in options_of(FAMILIES[family][0][name]).items():
            if parameter.default is parameter.empty or option in ("levels", "steps", "end"):
                section[option] = sensible.get(parameter.annotation, (1,))
            elif how == "all options":
                section[option] = parameter.default
    config[family] = section
    return f"{family}.name = {name!r} with {how}"


MUTATIONS = {  # how often each is taken
    _drop_option: 1,
    _drop_section: 1,
    _add_option: 1,
    _add_section: 1,
    _misspell: 2,
    _another_type: 3,
    _nasty_number: 15,
    _huge: 5,
    _strange_words: 3,
    _value_of_another: 3,
    _swap_sections: 1,
    _other_family_s_name: 1,
    _other_member: 7,
}


@st.composite
def mutated_configs(draw) -> tuple[str, Config]:
    """(what was done to it, a config): one of GOOD after one to three mutations."""
    config = copy.deepcopy(draw(st.sampled_from(GOOD)))
    done, often = [], [mutate for mutate, times in MUTATIONS.items() for _ in range(times)]
    for _ in range(draw(st.sampled_from((1, 1, 1, 1, 2, 3)))):
        mutate = draw(st.sampled_from(often))
        with contextlib.suppress(
            KeyError, TypeError, AttributeError
        ):  # two that exclude each other
            done.append(mutate(draw, config))
    names = {name: config.get(name) for name in ("process", "model", "sampler")}
    of = "/".join(str(s.get("name"))[:20] if isinstance(s, dict) else "-" for s in names.values())
    return f"{of}: {'; '.join(done) or 'nothing'}", config
