"""score_sde's networks: the PyTorch code's answers through our importer, switch by switch."""

from pathlib import Path

import jax
import numpy as np
import pytest
from goldens import cases, golden, relative_error

from score_jax.errors import UserError
from score_jax.interop import score_sde
from score_jax.interop.mapping import convert, shapes
from score_jax.models import NCSNpp, UNet
from score_jax.models.base import as_net
from score_jax.parameterization import Parameterization, make_predict
from score_jax.processes import VE, geometric

pytestmark = pytest.mark.usefixtures("quick_compile")

FAMILIES = {"score_sde_ncsnpp": NCSNpp, "score_sde_ddpm": UNet}
CASES = [(family, case) for family in FAMILIES for case in cases(family)]


def imported(family, found):
    """(our network, its parameters) of a golden."""
    options = {name: v for name, v in found.options.items() if name != "scale_by_sigma"}
    module, shape = FAMILIES[family](**options), found.x.shape[1:]
    parameters = shapes(module, shape)
    rules = score_sde.torch_rules(module, shape, parameters)
    unused = score_sde.unused(module, found.tensors)
    return module, convert(rules, found.tensors, parameters, unused)


@pytest.mark.parametrize(("family", "case"), [c for c in CASES if "scaled" not in c[1]])
def test_our_network_answers_as_the_original(family, case):
    """Their network takes σ where it has Fourier features, and ours log σ."""
    found = golden(family, case)
    module, params = imported(family, found)
    fourier = getattr(module, "embedding", "") == "fourier"
    y = jax.jit(module.apply)({"params": params}, found.x, np.log(found.c) if fourier else found.c)
    assert relative_error(y, found.y) < 1e-5


@pytest.mark.parametrize(("family", "case"), [c for c in CASES if "scaled" in c[1]])
def test_the_view_scaled_score_is_their_scale_by_sigma(family, case):
    """What they divide by σ inside the network is our score at the time of σ."""
    found = golden(family, case)
    module, params = imported(family, found)
    if getattr(module, "embedding", "") == "fourier":
        process, condition = VE(), "log_sigma"
        t = process.time_of_logsnr(-2.0 * np.log(found.c))
    else:  # c is the index of a level, from the noisiest
        process, condition = geometric(sigma_min=0.01, sigma_max=50.0, levels=10), "reversed_level"
        t = (10 - found.c) / 10
    how = Parameterization(view="scaled_score", condition=condition)
    predict = make_predict(as_net(module, params), process, how)
    score = jax.jit(jax.vmap(lambda x, t: predict(x, t).score))(found.x, t)
    assert relative_error(score, found.y) < 1e-5


def checkpoint(**changes):
    """What a checkpoint_<n>.pth holds, of a network with fixed Fourier features."""
    rng = np.random.default_rng(0)
    draw = lambda *shape: rng.standard_normal(shape).astype(np.float32)
    model = {
        "module.sigmas": draw(10),
        "module.all_modules.0.W": draw(4),
        "module.all_modules.1.weight": draw(3, 3),
        "module.all_modules.2.NIN_0.W": draw(3, 3),
        "module.all_modules.2.NIN_0.b": draw(3),
    }
    shadow = [2.0 * model[name] for name in list(model)[2:]]
    return {"model": model, "ema": {"shadow_params": shadow}, "step": 40_001} | changes


def source_of(monkeypatch, held):
    monkeypatch.setattr(score_sde, "read", lambda path: held)
    return score_sde.torch_source(Path("checkpoint_4.pth"))


def test_the_average_is_a_list_in_the_models_order_without_what_is_not_trained(monkeypatch):
    """EMA of score_sde_pytorch: no names, no buffer, none without a gradient."""
    held = checkpoint()
    found = source_of(monkeypatch, held)
    assert found.step == 40_001
    model, ema = found.sets["model"], found.sets["ema"]
    assert set(model) == set(ema) and "all_modules.1.weight" in model
    for name in model:
        fixed = name in ("sigmas", "all_modules.0.W")
        np.testing.assert_array_equal(ema[name], model[name] if fixed else 2.0 * model[name])


def test_an_average_of_another_model_is_refused(monkeypatch):
    held = checkpoint()
    held["ema"]["shadow_params"].pop()
    with pytest.raises(UserError, match="2 tensors that are not the model's 3"):
        source_of(monkeypatch, held)


def test_a_bare_state_dict_is_the_model(monkeypatch):
    found = source_of(monkeypatch, checkpoint()["model"])
    assert set(found.sets) == {"model"} and "sigmas" in found.sets["model"]
