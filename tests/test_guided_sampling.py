"""config.guidance, from its words to samples: each map is the library's own, jits once, spreads."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from conftest import make_process, mixture, tiny_config, tiny_images

from score_jax.build import build
from score_jax.errors import UserError
from score_jax.given.given import GIVEN
from score_jax.guidance import extrapolated
from score_jax.inverse import PREDICTIONS, SAMPLINGS
from score_jax.inverse.observation import observe
from score_jax.predictions import exact
from score_jax.samplers import SAMPLERS, base
from score_jax.sampling import make_draw, sample_key
from score_jax.training.state import create

pytestmark = pytest.mark.usefixtures("quick_compile")
ROOT = Path(__file__).parent.parent

TRACED = []  # an item for each time the operator is traced

OPERATOR = """
import jax.numpy as jnp
from test_guided_sampling import TRACED


def operator(x):
    TRACED.append(1)
    return jnp.array([[0.6, 0.8]]) @ x
"""
MATRIX = np.array([[0.6, 0.8]], np.float32)  # the operator's
# For every method an example: its own options, and what it asks of the sampler.
METHODS = {
    "pigdm": {},
    "mmps": {},
    "replacement": {},
    "repaint": dict(repeats=2, jump=3),
    "dps": dict(scale=0.1),
    "twisted": dict(particles=3),
}
# What each sampler needs to be told to be quick.
QUICK = {
    "langevin": dict(steps=3, end=0.25),
    "mala": dict(steps=3, end=0.25),
    "annealed_langevin": dict(levels=3, steps_per_level=2, grid="uniform"),
    "adaptive": dict(rtol=1e-2, atol=1e-2),
    "ddim": dict(steps=4, eta=0.5),
}


@pytest.fixture(autouse=True)
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("mine.py").write_text(OPERATOR)
    np.save("y.npy", np.array([0.4], np.float32))


def of_points(method, sampler="ancestral", **options):
    observed = dict(observed="y.npy", operator="mine.py", noise=0.1)
    config = tiny_config(
        process=dict(name="vp"),
        parameterization=dict(condition="time"),
        evaluation=dict(samples=8),
    )
    config["sampler"] = dict(name=sampler) | QUICK.get(sampler, dict(steps=5))
    config["loss"] = dict(name="denoising")
    return config | dict(guidance=dict(name=method) | observed | METHODS.get(method, {}) | options)


def of_classes(**guidance):
    config = tiny_images(sampler=dict(steps=3), evaluation=dict(samples=4, batch_size=4))
    config["data"] = dict(name="digits")
    config["model"] |= dict(dropout=0.0, classes=10, label_dropout=0.1)
    return config | (dict(guidance=guidance) if guidance else {})


def trained_away(experiment):
    """Parameters off their zeros, as if trained."""
    rng = np.random.default_rng(0)
    params = create(experiment).params
    return jax.tree.map(lambda p: p + 0.2 * rng.standard_normal(p.shape, np.float32), params)


def test_every_method_has_an_example():
    assert set(METHODS) == {*PREDICTIONS, *SAMPLINGS}
    assert set(GIVEN) == {*METHODS, "none", "sdedit", "interpolation"}


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_config_draws_what_the_librarys_function_draws(method):
    experiment = build(of_points(method))
    params = trained_away(experiment)
    drawn = make_draw(experiment, 4)(params, range(4))
    assert drawn.finite.all()

    plain = build(of_points(method) | dict(guidance={}))
    predict, process = plain.predict(plain.net(params)), plain.process
    observation = observe(np.array([0.4], np.float32), lambda x: MATRIX @ x, 0.1, (2,))
    if method in PREDICTIONS:
        sampler = plain.sampler
        predict = PREDICTIONS[method](predict, process, observation, **METHODS[method])
    else:
        make = SAMPLINGS[method]
        sampler = make(plain.sampler, process, observation, **METHODS[method])

    def one(key):
        return base.sample_counted(key, process, sampler, predict, (2,))

    keys = jax.vmap(lambda i: sample_key(plain, i))(np.arange(4))
    x, evaluations = jax.jit(jax.vmap(one))(keys)
    np.testing.assert_allclose(drawn.samples, x, rtol=2e-4, atol=2e-5)
    np.testing.assert_array_equal(drawn.evaluations, evaluations)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_is_traced_once_and_knows_no_batch_mates(method):
    experiment = build(of_points(method))
    params, draw = trained_away(experiment), make_draw(experiment, 4)
    TRACED.clear()
    eight = draw(params, range(8)).samples
    traced = len(TRACED)
    again = draw(params, [6, 2, 5, 7]).samples
    np.testing.assert_array_equal(again, eight[[6, 2, 5, 7]])
    assert len(TRACED) == traced > 0


@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("method", sorted(METHODS))
def test_a_method_works_with_a_sampler_or_says_why_not(method, sampler):
    """With every one whose state is x (twisted: whose step is one normal draw; repaint: that comes
    down in noise), and predictions with all; what is refused says the method's reason."""
    process = make_process("vp")
    plain = SAMPLERS[sampler](process, **QUICK.get(sampler, dict(steps=3)))
    observation = observe(np.array([0.4]), lambda x: MATRIX @ x, 0.1, (2,))
    predict, options = exact(process, mixture()), METHODS[method]
    fits = (
        method in PREDICTIONS
        or (method == "twisted" and plain.kernel is not None)
        or (method == "repaint" and not plain.has_memory and "langevin" not in sampler)
        or (method in ("replacement", "dps") and not plain.has_memory)
    )
    if not fits:
        with pytest.raises(UserError, match="needs a sampler|reuses what the network|goes back"):
            SAMPLINGS[method](plain, process, observation, **options)
        return
    if method in PREDICTIONS:
        predict = PREDICTIONS[method](predict, process, observation, **options)
    else:
        plain = SAMPLINGS[method](plain, process, observation, **options)
    draw = lambda key: base.sample_counted(key, process, plain, predict, (2,))
    x, evaluations = jax.eval_shape(draw, jax.random.key(0))
    assert x.shape == (2,) and evaluations.shape == ()


def test_a_weight_of_none_draws_bit_for_bit_what_no_guidance_draws():
    plain, none = build(of_classes()), build(of_classes(weight=0.0))
    params = trained_away(plain)
    a, b = (make_draw(e, 4)(params, range(4)) for e in (plain, none))
    np.testing.assert_array_equal(a.samples, b.samples)
    np.testing.assert_array_equal(a.evaluations, b.evaluations)


def test_classifier_free_guidance_is_away_from_no_class():
    experiment = build(of_classes(weight=1.5, interval=(0.1, 3.0), rescale=0.4))
    params = trained_away(experiment)
    x, t = jax.random.normal(jax.random.key(0), (8, 8, 1)), 0.5
    ask = lambda label: experiment.predict(experiment.net(params, label=label))
    how = dict(weight=1.5, interval=(0.1, 3.0), rescale=0.4)
    by_hand = extrapolated(ask(np.int32(3)), ask(np.int32(-1)), experiment.process, **how)
    guided = experiment.sampling_predict(params, np.int32(3))
    a, b = jax.jit(guided)(x, t), jax.jit(by_hand)(x, t)
    np.testing.assert_allclose(a.x0, b.x0, rtol=1e-5, atol=1e-6)
    assert int(a.evaluations) == 2
    assert np.abs(a.x0 - jax.jit(ask(np.int32(3)))(x, t).x0).max() > 1e-3


def test_what_another_network_guides_is_not_guided_while_it_is_not_there():
    """As in the pictures that training draws."""
    config = of_classes(by="classifier", weight=1.0)
    config["classifier"] = dict(features=8, multipliers=(1,), blocks=1, attention=(),
                                steps=2, batch_size=8)  # fmt: skip
    plain, experiment = build(of_classes()), build(config)
    params = trained_away(plain)
    a, b = (make_draw(e, 4)(params, range(4)).samples for e in (plain, experiment))
    np.testing.assert_array_equal(a, b)


DEVICES_SCRIPT = """
import sys
import numpy as np, jax
from score_jax.build import build
from score_jax.sampling import make_draw
from test_guided_sampling import METHODS, of_points, trained_away
assert jax.local_device_count() == 4
drawn = {}
for method in METHODS:
    experiment = build(of_points(method))
    drawn[method] = make_draw(experiment, 8)(trained_away(experiment), range(8)).samples
np.savez(sys.argv[1], **drawn)
"""


def test_four_devices_draw_what_one_draws():
    environment = os.environ | {
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
    }
    done = [sys.executable, "-c", DEVICES_SCRIPT, "four.npz"]
    subprocess.run(done, env=environment, check=True)
    with np.load("four.npz") as four:
        for method in METHODS:
            experiment = build(of_points(method))
            one = make_draw(experiment, 8)(trained_away(experiment), range(8)).samples
            np.testing.assert_allclose(four[method], one, rtol=1e-3, atol=1e-4, err_msg=method)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (lambda: of_classes(weight=1.0)
         | dict(model=of_classes()["model"] | dict(label_dropout=0.0)),
         "has not learned to do without the class"),
        (lambda: tiny_images() | dict(guidance=dict(weight=1.0)), "the network is told no class"),
        (lambda: of_classes(weight=1.0, by="classifier"), "the config describes none; give"),
        (lambda: of_classes(image="x.png"), "is for samples of which something is known"),
        (lambda: of_classes(noise=0.1), "config.guidance.noise = 0.1 is for samples"),
        (lambda: of_points("pigdm") | dict(process=dict(name="flow")),
         "nothing of the data is left there"),
        (lambda: of_points("replacment"), "config.guidance.name .*Did you mean .replacement"),
        (lambda: of_points("repaint", repeats=0), "repaint.repeats must be at least 1, got 0"),
        (lambda: of_points("twisted", noise=0.0), "twisted .*noise"),
        (lambda: of_classes(name="repaint", to="x.png"), "unknown option of config.guidance 'to'"),
        (lambda: of_points("pigdm", "adaptive") | dict(guidance=dict(weight=1.0, by="weaker",
         run="r", interval=(0.1, 1.0))), "an adaptive solver would follow"),
        (lambda: of_classes(weight=1.0) | dict(sampler=dict(name="ancestral", steps=3,
         variance="analytic")), "is calibrated on samples that are not guided"),
        (lambda: of_points("mmps") | dict(sampler=dict(name="ancestral", steps=3,
         variance="analytic")), "is calibrated on unconditional samples"),
        (lambda: of_classes() | dict(classifier=dict(features=8)), "config.classifier needs steps"),
        (lambda: of_classes() | dict(classifier=dict(feature=8)), "Did you mean 'features'"),
        (lambda: tiny_config() | dict(classifier=dict(width=8, steps=2, batch_size=4)),
         "have no classes to be told apart"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(config, message):
    with pytest.raises(UserError, match=message):
        build(config())


def test_the_sampling_module_draws_each_sample_by_its_own_sampler_where_it_has_one():
    """Interpolation's fraction is the sample's place among all."""
    rng = np.random.default_rng(0)
    from PIL import Image

    for name in "ab":
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(f"{name}.png")
    config = of_classes(name="interpolation", image="a.png", to="b.png", rtol=1e-2, atol=1e-2)
    config["evaluation"] = dict(samples=3, batch_size=3, features="none", label=-1)
    experiment = build(config)
    drawn = make_draw(experiment, 3)(create(experiment).params, range(3))
    ends = experiment.given.shown
    assert np.abs(drawn.samples[0].astype(int) - ends[0]).max() <= 8
    assert np.abs(drawn.samples[2].astype(int) - ends[1]).max() <= 8
    assert np.abs(drawn.samples[1].astype(int) - ends[0]).max() > 20
