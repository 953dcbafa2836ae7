"""The adaptive solver against solutions known in closed form, and its count against the truth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from score_jax.errors import UserError
from score_jax.odes import A, C, E, solve

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose


def decay(y, t):
    """dy/dt = -2 t y², whose solution through y(0) = 1/c is 1/(c + t²)."""
    return -2.0 * t * y**2


def decayed(c, t):
    return 1.0 / (c + t**2)


def run(tol, f=decay, y=(1.0, 0.5), t0=0.0, t1=3.0, **options):
    y = jnp.array(y) if isinstance(y, tuple) else y
    return jax.jit(lambda y: solve(f, y, t0, t1, rtol=tol, atol=tol, **options))(y)


def test_the_tableau_fulfils_the_order_conditions_up_to_four_and_the_quadratures_of_five(x64):
    """The sums over trees of Hairer, Nørsett & Wanner 1993, section II.2."""
    close(A.sum(1), C, atol=1e-15)
    for weights, order in ((A[-1], 5), (A[-1] - E, 4)):
        for q in range(order):
            close(weights @ C**q, 1.0 / (q + 1), atol=1e-15)
        close(weights @ A @ C, 1 / 6, atol=1e-15)
        close(weights @ (C * (A @ C)), 1 / 8, atol=1e-15)
        close(weights @ A @ C**2, 1 / 12, atol=1e-15)
        close(weights @ A @ A @ C, 1 / 24, atol=1e-15)
    close(A[-1] @ A @ A @ A @ C, 1 / 120, atol=1e-15)


def test_the_error_is_below_the_tolerance_and_proportional_to_it(x64):
    tolerances = 10.0 ** -np.arange(4, 12, 2)
    exact = decayed(np.array([1, 2]), 3)
    errors = np.array([np.abs(run(tol).y - exact).max() for tol in tolerances])
    assert np.all(errors < tolerances) and np.all(errors > 0.01 * tolerances)
    slope = np.polyfit(np.log(tolerances), np.log(errors), 1)[0]
    assert 0.85 < slope < 1.1


def test_the_solution_is_of_fifth_order_in_the_number_of_steps(x64):
    """The logistic equation, y = 1/(1 + (1/y_0 - 1) exp(-t)): error ∝ steps^-5."""
    y = jnp.array([0.01, 0.1])
    exact = 1.0 / (1.0 + (1.0 / y - 1.0) * np.exp(-10.0))
    runs = [run(tol, lambda y, t: y * (1.0 - y), y, t1=10.0) for tol in (1e-8, 1e-10, 1e-12)]
    errors = np.array([np.abs(r.y - exact).max() for r in runs])
    orders = -np.diff(np.log(errors)) / np.diff(np.log([int(r.accepted) for r in runs]))
    assert np.all(np.abs(orders - 5.0) < 0.25) and errors[0] < 1e-8


def test_many_variables_in_any_pytree_turn_together(x64):
    """A rotation in a dict of arrays of several shapes: back at the start after 2π."""
    y = {"x": jnp.array([[1.0, -2.0], [0.3, 5.0]]), "v": (jnp.array([[0.5, 1.0], [4.0, -1.0]]),)}
    turn = lambda y, t: {"x": y["v"][0], "v": (-y["x"],)}
    got = run(1e-9, turn, y, 1.0, 1.0 + 2 * np.pi).y
    jax.tree.map(lambda a, b: close(a, b, atol=1e-7), got, y)


def test_what_is_solved_forward_is_solved_back(x64):
    y = jnp.array([1.0, 0.5])
    there = run(1e-10, y=y).y
    close(run(1e-10, y=there, t0=3.0, t1=0.0).y, y, atol=2e-8)


@pytest.mark.parametrize("tol", [1e-2, 1e-5, 1e-8])
def test_evaluations_are_the_calls_really_made(tol):
    """Counted by the function itself; a step, taken or not, is six of them, the start two."""
    calls = []

    def counted(y, t):
        jax.debug.callback(lambda: calls.append(1))
        return jnp.where(t > 1.0, -50.0, -0.1) * y  # a kink, so that steps are rejected

    solution = run(tol, counted)
    jax.effects_barrier()
    assert len(calls) == solution.evaluations
    attempts = (int(solution.evaluations) - 2) // 6
    assert solution.evaluations == 2 + 6 * attempts and attempts > solution.accepted


def test_each_example_takes_its_own_steps(x64):
    """vmap = loop: the same numbers and the same counts, which differ between examples."""
    rates = jnp.array([0.1, 1.0, 30.0])
    one = lambda c: solve(lambda y, t: -c * y**2, 1.0 + c, 0.0, 2.0, rtol=1e-6, atol=1e-6)
    together = jax.jit(jax.vmap(one))(rates)
    alone = [jax.jit(one)(c) for c in rates]
    close(together.y, [a.y for a in alone], rtol=1e-13)
    np.testing.assert_array_equal(together.evaluations, [a.evaluations for a in alone])
    assert len(set(together.evaluations.tolist())) == 3
    close(together.y, (1 + rates) / (1 + 2 * rates * (1 + rates)), atol=1e-5)


def test_no_time_is_no_change():
    solution = run(1e-5, t0=1.3, t1=1.3)
    np.testing.assert_array_equal(solution.y, [1.0, 0.5])
    assert (solution.evaluations, solution.accepted) == (2, 0)


def test_a_solution_at_rest_stays_there_in_steps_that_grow_tenfold(x64):
    solution = run(1e-5, lambda y, t: 0.0 * y, t1=1e-6 * 11_000)
    np.testing.assert_array_equal(solution.y, [1.0, 0.5])
    assert solution.accepted == 5 and solution.evaluations == 2 + 6 * 5


def test_a_solution_that_ends_before_t1_is_nan():
    """dy/dt = y² from 1 is infinite at t = 1."""
    assert np.isfinite(run(1e-6, lambda y, t: y**2, jnp.array(1.0), 0.0, 0.99).y)
    assert np.isnan(run(1e-6, lambda y, t: y**2, jnp.array(1.0), 0.0, 2.0).y)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_begins_or_becomes_non_finite_is_nan_though_the_rest_is_not(bad):
    assert np.isnan(run(1e-5, y=jnp.array([1.0, bad])).y).all()
    assert np.isnan(run(1e-5, lambda y, t: jnp.where(t > 1.0, bad, -y)).y).all()


def test_an_undefined_example_leaves_its_batch_mates_alone(x64):
    one = lambda y: solve(decay, y, 0.0, 3.0, rtol=1e-6, atol=1e-6)
    both = jax.jit(jax.vmap(one))(jnp.array([np.nan, 1.0])).y
    assert np.isnan(both[0]) and abs(both[1] - 0.1) < 1e-6


def test_too_few_evaluations_give_nan_and_are_never_exceeded(x64):
    needed = int(run(1e-8).evaluations)
    enough, short = (run(1e-8, max_evaluations=n) for n in (needed, needed - 1))
    assert enough.evaluations == needed and np.isfinite(enough.y).all()
    assert short.evaluations == needed - 6 and np.isnan(short.y).all()


def test_a_stiff_problem_gives_up_and_says_so():
    """A rate of 1e6 holds an explicit method to steps of 3e-6: a million calls."""
    solution = run(1e-5, lambda y, t: -1e6 * (y - jnp.cos(t)), max_evaluations=3_000)
    assert np.isnan(solution.y).all() and 2_990 < solution.evaluations <= 3_000


def test_float32_reaches_its_usual_tolerance():
    solution = run(1e-5)
    assert solution.y.dtype == np.float32
    close(solution.y, decayed(np.array([1, 2]), 3), atol=1e-5)
    assert solution.evaluations <= 1.1 * 86  # what float64 needs


def test_float32_with_a_tolerance_below_its_own_still_ends():
    close(run(1e-9).y, decayed(np.array([1, 2]), 3), atol=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        dict(rtol=1e-5, atol=0.0),
        dict(rtol=-1e-5, atol=1e-5),
        dict(rtol=float("nan"), atol=1e-5),
        dict(rtol=1e-5, atol=1e-5, max_evaluations=7),
    ],
)
def test_tolerances_that_cannot_be_met_are_refused(options):
    with pytest.raises(UserError) as error:
        solve(decay, jnp.ones(2), 0.0, 1.0, **options)
    bad = "max_evaluations" if "max_evaluations" in options else "atol"
    assert bad in str(error.value)
