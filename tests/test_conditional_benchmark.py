"""python -m benchmarks.conditional: its figures are what they say, and the exact methods exact."""

import jax
import numpy as np
import pytest

from benchmarks.conditional import (
    by_dps,
    cases,
    errors,
    exactly,
    measure,
    methods,
    of_batch_size,
    report,
)

pytestmark = pytest.mark.usefixtures("quick_compile")

NORMAL, COORDINATE, GENERIC = cases()
METHODS = {m.name: m for m in methods(200, other_steps=50, repeats=2, particles=(64,))}


def test_converged_mmps_is_exact_on_a_normal_and_replacement_is_not():
    assert measure(NORMAL, METHODS["mmps, converged"], 400)["beyond"] == "nothing"
    assert "mean" in measure(NORMAL, METHODS["replacement"], 400)["beyond"]


def test_twisted_is_exact_on_three_modes_and_replacement_is_not():
    record = measure(COORDINATE, METHODS["twisted, K = 64"], 400)
    assert record["beyond"] == "nothing" and record["evaluations"] == 64 * 201
    record = measure(COORDINATE, METHODS["replacement"], 400)
    assert record["beyond"] == "mean, covariance, modes" and record["modes"] > 0.3
    assert record["evaluations"] == 201


def test_dps_does_not_know_the_size_of_the_batch():
    assert of_batch_size(NORMAL, by_dps(20)) < 1e-12


@pytest.mark.parametrize("case", cases(), ids=lambda case: case.name[0])
def test_exact_draws_are_within_their_error_and_wrong_ones_off_by_what_they_are(case):
    posterior = case.posterior()
    x, _ = exactly(jax.random.key(0), case, 20_000)
    assert errors(x, posterior)["beyond"] == "nothing"

    center = x.mean(0)
    shifted = errors(x + np.linalg.cholesky(posterior.covariance())[:, 0], posterior)
    assert abs(shifted["mean"] - len(center) ** -0.5) < 4 * shifted["mean_se"]
    assert "mean" in shifted["beyond"] and "covariance" not in shifted["beyond"]

    wider = errors(center + 1.2 * (x - center), posterior)
    assert abs(wider["covariance"] - 0.44) < 4 * wider["covariance_se"]
    assert "covariance" in wider["beyond"] and "mean" not in wider["beyond"]


@pytest.mark.parametrize("case", [COORDINATE, GENERIC], ids=lambda case: case.name[0])
def test_the_error_of_the_modes_is_the_total_variation_of_their_weights(case):
    posterior = case.posterior()
    wrong = np.array([0.2, 0.3, 0.5])
    far = posterior._replace(means=posterior.means + 100 * np.arange(3)[:, None])  # no overlap
    x = np.asarray(jax.vmap(far._replace(weights=wrong).sample)(keys(20_000)))
    found = errors(x.astype(np.float64), far)
    expected = 0.5 * abs(wrong - posterior.weights).sum()
    assert abs(found["modes"] - expected) < 4 * found["modes_se"]
    assert "modes" in found["beyond"]


def keys(n):
    return jax.random.split(jax.random.key(3), n)


def test_the_report_has_a_table_for_each_case():
    records = [measure(case, METHODS["exact"], 50) for case in cases()]
    text = report(records, 2e-10)
    assert all(f"{case.name}:" in text for case in cases())
    assert text.count("| exact") == 3 and "2e-10" in text
    assert [case.replaceable() for case in cases()] == [True, True, False]
