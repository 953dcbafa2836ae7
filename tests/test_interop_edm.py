"""EDM's and EDM2's networks: the originals' answers through our importer."""

import jax
import numpy as np
import pytest
from goldens import cases, golden, relative_error

from score_jax.interop import edm
from score_jax.interop.mapping import convert, shapes
from score_jax.models import MODELS
from score_jax.models.base import as_net
from score_jax.parameterization import Parameterization, make_predict
from score_jax.processes import EDM

pytestmark = pytest.mark.usefixtures("quick_compile")


def imported(found, folder):
    """(our network, its parameters) of a golden, by way of a file."""
    path = folder / "weights.npz"
    np.savez(path, **found.tensors)
    source = edm.source(path)
    options = dict(found.options)
    module = MODELS[options.pop("name")](**options)
    parameters = shapes(module, found.x.shape[1:])
    rules, tensors = source.rules(module, found.x.shape[1:], parameters), source.sets["ema"]
    return module, convert(rules, tensors, parameters, source.unused(module, tensors))


@pytest.mark.parametrize("case", [case for case in cases("edm") if case != "denoiser"])
def test_edm_s_network_answers_as_the_original(case, tmp_path):
    found = golden("edm", case)
    module, params = imported(found, tmp_path)
    told = {} if found.label is None else {"label": found.label}
    y = jax.jit(module.apply)({"params": params}, found.x, found.c, **told)
    assert relative_error(y, found.y) < 1e-5


def test_the_view_F_is_edm_s_preconditioning(tmp_path):
    """D(x; σ) of their EDMPrecond, σ_data = 0.5: our x0 at the time of σ."""
    found = golden("edm", "denoiser")
    module, params = imported(found, tmp_path)
    process = EDM()
    predict = make_predict(
        as_net(module, params), process, Parameterization(view="F", condition="edm")
    )
    t = process.time_of_logsnr(-2.0 * np.log(found.c))
    x0 = jax.jit(jax.vmap(lambda x, t: predict(x, t).x0))(found.x, t)
    assert relative_error(x0, found.y) < 1e-5
