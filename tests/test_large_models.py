"""bfloat16, microbatches and rematerialization: the same training with less memory."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_config, tiny_images
from test_training import metrics, run, stepped

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.models.base import init_params
from score_jax.parallel import check_divides

pytestmark = pytest.mark.usefixtures("quick_compile")

LEVELS = 4
MODELS = {
    "unet": tiny_images(),
    "refinenet": tiny_images()
    | dict(
        data=dict(name="digits", centered=False),
        model=dict(name="refinenet", features=16, levels=LEVELS),
        process=dict(name="ncsn", sigma_min=0.05, sigma_max=5.0, levels=LEVELS),
        sampler=dict(name="ancestral", grid="ladder", steps=LEVELS),
    ),
    "mlp": tiny_config(),
}


def changed(name, **options):
    config = MODELS[name]
    return build(config | dict(model=config["model"] | options))


def example(experiment):
    shape = experiment.data.shape
    params = init_params(experiment.module, jax.random.key(0), shape)
    bent = lambda p: p + 0.02 * np.cos(np.arange(p.size, dtype=np.float32)).reshape(p.shape)
    params = jax.tree.map(bent, params)
    return params, jax.random.normal(jax.random.key(1), shape)


def loss_of(experiment, x):
    return lambda params: jnp.mean(jnp.square(experiment.net(params)(x, 2.0) - 1.0))


def close(a, b, **tolerance):
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(x, y, **tolerance)


@pytest.mark.parametrize("microbatches", [2, 8])
def test_microbatches_take_the_step_of_the_whole_batch(microbatches):
    """To rounding: every example has the draws of its place in the batch."""
    one = stepped(build(tiny_config()), 3)[-1]
    several = stepped(build(tiny_config(training=dict(microbatches=microbatches))), 3)[-1]
    close(several, one, rtol=2e-4, atol=1e-6)


def test_microbatches_must_share_a_batch_equally():
    check_divides(32, 4)
    with pytest.raises(UserError, match="1 devices in 3 microbatches each; use a multiple of 3"):
        check_divides(32, 3)


@pytest.mark.parametrize("name", ["unet", "refinenet"])
def test_remat_leaves_the_parameters_their_names_and_values(name):
    """So a run may turn it on or off on its way."""
    plain, again = (example(changed(name, remat=on))[0] for on in (False, True))
    close(plain, again, rtol=0)


def test_remat_does_not_change_the_gradient():
    plain, again = changed("unet"), changed("unet", remat=True)
    params, x = example(plain)
    values = [jax.jit(jax.value_and_grad(loss_of(e, x)))(params) for e in (plain, again)]
    close(*values, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["unet", "refinenet"])
def test_remat_keeps_less_for_the_gradient(name):
    """What the forward pass hands to the backward pass, in numbers, at least a third less."""

    def kept(experiment):
        params, x = example(experiment)
        _, residuals = jax.eval_shape(lambda p: jax.vjp(loss_of(experiment, x), p), params)
        of_params = sum(leaf.size for leaf in jax.tree.leaves(params))
        return sum(leaf.size for leaf in jax.tree.leaves(residuals)) - of_params

    plain, again = kept(changed(name)), kept(changed(name, remat=True))
    assert again < 0.67 * plain


def primitives(jaxpr):
    for equation in jaxpr.eqns:
        yield equation
        for value in jax.tree.leaves(equation.params, is_leaf=lambda v: hasattr(v, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from primitives(inner)


@pytest.mark.parametrize("name", MODELS)
def test_bfloat16_is_what_every_product_computes_in_and_nothing_else_is(name):
    """The parameters, the gradient and the answer are float32, the answer nearly the same."""
    full, half = changed(name), changed(name, dtype="bfloat16")
    params, x = example(full)
    jaxpr = jax.make_jaxpr(loss_of(half, x))(params).jaxpr
    products = [
        e for e in primitives(jaxpr) if e.primitive.name in ("dot_general", "conv_general_dilated")
    ]
    assert len(products) > 3
    assert {v.aval.dtype.name for e in products for v in e.invars} == {"bfloat16"}
    grads = jax.grad(loss_of(half, x))(params)
    assert {leaf.dtype.name for leaf in jax.tree.leaves((params, grads))} == {"float32"}
    answers = [np.asarray(e.net(params)(x, 2.0)) for e in (full, half)]
    assert answers[1].dtype == np.float32
    error = np.sqrt(np.mean(np.square(answers[1] - answers[0])) / np.mean(np.square(answers[0])))
    assert 0.0 < error < 0.05


def test_the_level_is_not_rounded_to_bfloat16():
    """Levels 996 and 997 have one bfloat16; the network is to tell them apart."""
    assert jnp.bfloat16(996) == jnp.bfloat16(997)
    half = changed("unet", dtype="bfloat16")
    params, x = example(half)
    net = half.net(params)
    assert not np.array_equal(net(x, 996.0), net(x, 997.0))


def training(**changes):
    """Forty steps of the U-Net on real digits, with these changes by section."""
    config = MODELS["unet"]
    options = dict(steps=40, log_every=10, learning_rate=2e-3, sample_every=100)
    changes["training"] = options | changes.get("training", {})
    return config | {name: config[name] | changes[name] for name in changes}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    run(training(), folder / "run")
    return [line["loss"] for line in metrics(folder / "run")]


@pytest.mark.parametrize(
    "changes",
    [
        dict(model=dict(dtype="bfloat16")),
        dict(model=dict(remat=True)),
        dict(training=dict(microbatches=2)),
    ],
    ids=["bfloat16", "remat", "microbatches"],
)
def test_each_of_them_trains(changes, plain, tmp_path):
    """To the loss of the plain run within 3 %, and well below where it began."""
    run(training(**changes), tmp_path / "run")
    losses = [line["loss"] for line in metrics(tmp_path / "run")]
    np.testing.assert_allclose(losses, plain, rtol=0.03)
    assert losses[-1] < 0.8 * losses[0]


def test_they_may_be_changed_in_a_run(tmp_path, capsys):
    """They are how it is computed, not what."""
    run(tiny_config(), tmp_path / "run")
    changes = dict(model=dict(dtype="bfloat16"), training=dict(steps=16, microbatches=2))
    assert int(run(tiny_config(**changes), tmp_path / "run").step) == 16
    said = capsys.readouterr().out
    assert "model.dtype: 'float32' there, 'bfloat16' here" in said
    assert "going on from the checkpoint of step 12" in said


def test_a_number_format_that_is_none_is_answered_with_those_that_are():
    with pytest.raises(UserError, match="unknown config.model.dtype 'float8'.*bfloat16"):
        changed("mlp", dtype="float8")
