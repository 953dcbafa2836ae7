"""score_sde's networks in JAX: the originals' answers through our importer."""

import jax
import numpy as np
import pytest
from goldens import cases, golden, relative_error

from score_jax.errors import UserError
from score_jax.interop import ncsn, score_sde
from score_jax.interop.mapping import convert, export, shapes
from score_jax.models import UNet
from score_jax.models.base import init_params
from score_jax.models.ncsnpp import NCSNpp
from score_jax.models.ncsnv2 import NCSNv2
from score_jax.models.refinenet import RefineNet

pytestmark = pytest.mark.usefixtures("quick_compile")

FAMILY = "score_sde_jax"
NETWORKS = {"ncsnpp": NCSNpp, "ddpm": UNet, "ncsnv2": NCSNv2, "ncsn": RefineNet}
SCALED = "scale_by_sigma"  # where theirs divides by the noise level


def made(case, options):
    """Our network for a case."""
    options = {name: value for name, value in options.items() if name != SCALED}
    return NETWORKS[case.split("_")[0]](**options)


def as_ours(module, c):
    """What our network is told for what theirs is."""
    if getattr(module, "embedding", None) == "fourier":
        return np.log(c)
    return module.levels - 1 - c if isinstance(module, RefineNet) else c


def imported(module, shape, tensors):
    parameters = shapes(module, shape)
    rules = score_sde.flax_rules(module, shape, parameters)
    return convert(rules, tensors, parameters, score_sde.unused(module, tensors))


@pytest.mark.parametrize("case", cases(FAMILY))
def test_a_network_answers_as_the_original(case):
    found = golden(FAMILY, case)
    module = made(case, found.options)
    params = imported(module, found.x.shape[1:], found.tensors)
    y = jax.jit(module.apply)({"params": params}, found.x, as_ours(module, found.c))
    if SCALED in found.options:
        y = y / found.c[:, None, None, None]
    assert relative_error(y, found.y) < 1e-5


def same(a, b):
    return jax.tree.structure(a) == jax.tree.structure(b) and all(
        np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b))
    )


def test_the_norms_of_old_flax_are_those_of_today():
    """A checkpoint of 2021 has [1, 1, 1, C] where Flax has [C] since."""
    found = golden(FAMILY, "ncsnpp_residual_both")
    module, shape = made("ncsnpp", found.options), found.x.shape[1:]
    old = {
        name: w[None, None, None] if "/GroupNorm_" in f"/{name}" else w
        for name, w in found.tensors.items()
    }
    assert sum(w.ndim != found.tensors[name].ndim for name, w in old.items()) > 20
    assert same(imported(module, shape, old), imported(module, shape, found.tensors))


def in_pytorch(name, w):
    """A tensor of theirs as PyTorch lays it out."""
    leaf = name.split("/")[-1]
    if leaf in ("kernel", "weight"):
        return w.transpose(3, 2, 0, 1) if w.ndim == 4 else w.T
    return w if leaf in ("W", "embedding") else w.reshape(-1)


@pytest.mark.parametrize(
    "case",
    [
        *("ddpm_three_levels", "ddpm_unconditional", "ncsnpp_skip_cat", "ncsnpp_residual_both"),
        *("ncsnpp_ddpm_blocks_fir", "ncsnpp_ddpm_blocks_skip", "ncsnpp_unconditional"),
        *("ncsn", "ncsnv2_64", "ncsnv2_256"),
    ],
)
def test_pytorch_s_names_for_the_same_weights_make_the_same_network(case):
    found = golden(FAMILY, case)
    module, shape = made(case, found.options), found.x.shape[1:]
    parameters = shapes(module, shape)
    torch, flax = (
        sorted(rules(module, shape, parameters), key=lambda rule: rule.ours)
        for rules in (score_sde.torch_rules, score_sde.flax_rules)
    )
    tensors = {
        theirs.theirs: in_pytorch(rule.theirs, found.tensors[rule.theirs])
        for theirs, rule in zip(torch, flax, strict=True)
    }
    known = known_shapes(case, module)
    assert known is None or {name: w.shape for name, w in tensors.items()} == known
    assert same(convert(torch, tensors, parameters), convert(flax, found.tensors, parameters))


def known_shapes(case, module):
    """The tensors of score_sde_pytorch's network with the same options, if it was run as well."""
    network, _, switch = case.partition("_")
    family = f"score_sde_{network}"
    if network not in ("ncsnpp", "ddpm") or switch not in cases(family):
        return None
    tensors = golden(family, switch).tensors
    left_out = score_sde.unused(module, tensors)
    return {name: w.shape for name, w in tensors.items() if name not in left_out}


PLACES = {"0": "model", "1": "optimizer", "2": 7, "3": 90_000, "4": "ema"}


@pytest.mark.parametrize("places", ["", "01", "0123", "01234"])
def test_a_checkpoint_of_the_authors_is_a_list(places, monkeypatch):
    """A state dict alone, ncsn's list, and ncsnv2's without and with a moving average."""
    module, shape = NCSNv2(features=4), (8, 8, 3)
    parameters = shapes(module, shape)
    rules = list(ncsn.torch_rules(module, shape, parameters))
    params = init_params(module, jax.random.key(0), shape)
    state = export(rules, params)
    parallel = {f"module.{name}": w for name, w in state.items()}
    parallel["module.sigmas"] = np.ones(232, np.float32)
    held = {
        "model": parallel,
        "optimizer": {"state": {0: {"step": 1}}, "param_groups": []},
        "ema": {name: 2.0 * w for name, w in state.items()},
    }
    file = {place: held.get(PLACES[place], PLACES[place]) for place in places} or parallel
    monkeypatch.setattr(ncsn, "read", lambda path: file)
    source = ncsn.torch_source("checkpoint.pth")
    assert list(source.sets) == ["model", "ema"][: 1 + ("4" in places)]
    assert source.step == (90_000 if "3" in places else 0)
    for name, tensors in source.sets.items():
        found = convert(rules, tensors, parameters, source.unused(module, tensors))
        assert same(found, params if name == "model" else jax.tree.map(lambda w: 2.0 * w, params))


@pytest.mark.parametrize("rules", [ncsn.torch_rules, ncsn.flax_rules])
def test_a_network_that_ncsn_does_not_have_is_refused(rules):
    with pytest.raises(UserError, match="refinenet and ncsnv2, not UNet"):
        list(rules(UNet(), (32, 32, 3), {}))


def test_a_list_of_something_else_is_refused(monkeypatch):
    monkeypatch.setattr(ncsn, "read", lambda path: {"0": np.zeros((8, 8, 3)), "1": 3})
    with pytest.raises(UserError, match="samples.pth: a list, but not one"):
        ncsn.torch_source("samples.pth")
