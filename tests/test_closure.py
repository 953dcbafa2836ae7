"""Closure: every sampler works with every process and every view of a network."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import by_hand, make_process, mixture

from score_jax.errors import UserError
from score_jax.parameterization import check_start
from score_jax.predictions import NETWORK_VIEWS, VIEWS, exact, express, from_energy, read
from score_jax.processes import PROCESSES, sample_prior
from score_jax.samplers import SAMPLERS, base

pytestmark = pytest.mark.usefixtures("quick_compile")

# What a sampler needs to be told, or is told to be quick; all else by its defaults.
OPTIONS = {
    "langevin": dict(steps=3, end=0.1),
    "mala": dict(steps=3, end=0.1),
    "annealed_langevin": dict(levels=3, steps_per_level=2, grid="uniform"),
    "adaptive": {},
}


@pytest.fixture(scope="module")
def networks():
    """For every process: the perfect network, and it again through every view of a network."""

    def both(process):
        predict, p = exact(process, mixture()), mixture()

        def through(x, t):
            truth = predict(x, t)
            seen = {
                view: read(view, express(view, truth, process, t), process, x, t)
                for view in NETWORK_VIEWS[:-1]
                if view != "posterior_mean" or process.levels
            }
            energy = lambda x, t: -p.noised(process.alpha(t), process.sigma(t)).log_prob(x)
            seen["energy"] = from_energy(process, energy)(x, t)
            return {view: {v: getattr(q, v) for v in VIEWS} for view, q in seen.items()}

        return process, jax.jit(predict), jax.jit(through)

    with jax.enable_x64(True):
        return {name: both(make_process(name)) for name in PROCESSES}


@pytest.mark.parametrize("name", sorted(PROCESSES))
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_a_sampler_works_with_a_process_and_all_views(sampler, name, networks, x64):
    """It gives finite samples, asking only where every view of the network, unless it is refused
    at this start, says the same as the truth. So what it does does not depend on the view."""
    process, predict, through = networks[name]
    built, asked = SAMPLERS[sampler](process, **OPTIONS.get(sampler, dict(steps=3))), []

    def remember(x, t):
        if not isinstance(x, jax.core.Tracer):
            asked.append((x, t))
        return predict(x, t)

    x = by_hand(jax.random.key(3), process, built, remember, (2,))
    assert np.all(np.isfinite(x)), x
    for x, t in asked[:: max(1, len(asked) // 6)]:
        truth = predict(x, t)
        for view, seen in through(x, t).items():
            if accepted(process, view, asked[0][1]):
                for v in VIEWS:
                    size = 1e-6 * max(1.0, float(jnp.abs(getattr(truth, v)).max()))
                    np.testing.assert_allclose(
                        seen[v], getattr(truth, v), rtol=1e-6, atol=size, err_msg=f"{view}, {t}"
                    )


def accepted(process, view, start):
    try:
        check_start(process, view, start)
    except UserError:
        return False
    return True


@pytest.mark.parametrize("name", sorted(PROCESSES))
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
def test_the_first_x_is_drawn_from_the_processs_own_prior(sampler, name):
    """A VE prior of standard deviation 1 is the classic slip."""
    process = make_process(name)
    built = SAMPLERS[sampler](process, **OPTIONS.get(sampler, dict(steps=3)))
    start = base.start(jax.random.key(0), process, built, (2,)).state
    key = jax.random.fold_in(jax.random.key(0), built.steps)
    x = sample_prior(key, process, (2,), built.start)
    assert np.array_equal(jax.tree.leaves(start)[0], x)
    assert built.start == 1.0 or (name == "flow" and built.start > 0.999)
