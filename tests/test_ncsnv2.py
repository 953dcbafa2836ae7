"""NCSN's and NCSNv2's networks: the authors' answers for the same weights, sizes, options."""

import jax
import numpy as np
import pytest
from goldens import cases, golden, relative_error

from score_jax.errors import UserError
from score_jax.interop import ncsn
from score_jax.interop.mapping import convert, shapes
from score_jax.models.base import as_net, count, init_params
from score_jax.models.ncsnv2 import NCSNv2
from score_jax.models.refinenet import RefineNet, enlarged

pytestmark = pytest.mark.usefixtures("quick_compile")

MULTIPLIERS = {
    "NCSNv2": (1, 2, 2, 2),
    "NCSNv2Deeper": (1, 2, 2, 4, 4),
    "NCSNv2Deepest": (1, 2, 2, 2, 4, 4),
}
SMALL = NCSNv2(features=4, multipliers=(1, 2, 2, 3))
SHAPE = (4, 6, 1)


def error(module, known, c):
    """The relative error of our answer with the weights of theirs, all of which must be used."""
    shape = known.x.shape[1:]
    parameters = shapes(module, shape)
    params = convert(ncsn.torch_rules(module, shape, parameters), known.tensors, parameters)
    return relative_error(jax.jit(module.apply)({"params": params}, known.x, c), known.y)


@pytest.fixture(scope="module")
def small():
    """(SMALL's parameters, an image)."""
    params = init_params(SMALL, jax.random.key(0), SHAPE)
    return params, jax.random.uniform(jax.random.key(1), SHAPE)


@pytest.mark.parametrize("case", cases("ncsn"))
def test_ncsn_answers_as_the_authors_does(case):
    known = golden("ncsn", case)
    levels = known.options["num_classes"]
    module = RefineNet(features=known.options["ngf"], levels=levels, code="authors")
    assert error(module, known, levels - 1 - known.c) < 1e-5


@pytest.mark.parametrize("case", cases("ncsnv2"))
def test_ncsnv2_answers_as_the_authors_does(case):
    """Theirs divides by the noise level at the end, which was left out for the comparison."""
    known = golden("ncsnv2", case)
    module = NCSNv2(
        code="authors",
        features=known.options["ngf"],
        multipliers=MULTIPLIERS[known.options["network"]],
        centered=known.options["rescaled"],
    )
    assert error(module, known, known.c) < 1e-5


@pytest.mark.parametrize(
    ("module", "parameters"),
    [
        (NCSNv2(code="authors"), 29_694_083),
        (NCSNv2(), 33_970_563),  # score_sde's
        (NCSNv2(multipliers=MULTIPLIERS["NCSNv2Deeper"]), 83_445_379),
        (NCSNv2(multipliers=MULTIPLIERS["NCSNv2Deepest"]), 94_132_611),
        (RefineNet(code="authors"), 30_117_635),  # the authors' NCSN
    ],
)
def test_a_published_network_has_its_number_of_parameters(module, parameters):
    assert count(module, (32, 32, 3)) == parameters


def test_the_noise_level_is_not_told(small):
    params, x = small
    net = jax.jit(as_net(SMALL, params))
    assert np.array_equal(net(x, 0.0), net(x, 200.0))
    assert not hasattr(SMALL, "levels")  # what build.py knows a network of levels by


def test_an_image_that_is_not_centered_is_made_so(small):
    params, x = small
    centered = jax.jit(as_net(SMALL.clone(centered=True), params))
    plain = jax.jit(as_net(SMALL, params))
    np.testing.assert_allclose(centered(2.0 * x - 1.0, 0.0), plain(x, 0.0), rtol=1e-5, atol=1e-6)


def test_every_block_can_be_computed_again(small):
    params, x = small
    again = SMALL.clone(remat=True)
    program = jax.make_jaxpr(as_net(again, params))(x, 0.0)
    blocks = [e.params["jaxpr"] for e in program.eqns if e.params.get("name") == "_shared"]
    assert sum("remat" in str(e.primitive) for block in blocks for e in block.eqns) == 4 * 2 + 4
    answers = (jax.jit(as_net(module, params))(x, 0.0) for module in (SMALL, again))
    np.testing.assert_allclose(*answers, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "shape", "words"),
    [
        (dict(features=1), (8, 8, 3), "features must be at least 2, got 1"),
        (dict(multipliers=(1, 2)), (8, 8, 3), "multipliers must be three or more"),
        (dict(multipliers=(1, 0, 2)), (8, 8, 3), "multipliers must be three or more"),
        (dict(multipliers=(1, 2, 2, 2, 2)), (8, 6, 3), "divide by 4, got \\(8, 6, 3\\)"),
        (dict(), (64,), "divide by 2, got \\(64,\\)"),
    ],
)
def test_what_cannot_be_is_refused(options, shape, words):
    with pytest.raises(UserError, match=words):
        NCSNv2(**options).check(shape)


def test_enlarging_that_keeps_areas_is_that_of_jax():
    x = np.random.default_rng(0).standard_normal((1, 3, 4, 2), np.float32)
    expected = jax.image.resize(x, (1, 6, 12, 2), "bilinear")
    np.testing.assert_allclose(enlarged(x, (6, 12), corners=False), expected, rtol=1e-5, atol=1e-6)
