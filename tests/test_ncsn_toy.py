"""The toy experiments of Song & Ermon 2019 come out as published: why noise, why many levels."""

import numpy as np

from benchmarks.ncsn_toy import low_density, manifold, mixing


def test_langevin_sees_half_of_the_weight_and_annealed_langevin_nearly_all():
    """Figure 3, with 4/5 in the mode at (5, 5): every one of ten seeds."""
    share = {name: [] for name in ("Langevin", "annealed Langevin")}
    for record in mixing(seeds=10):
        share[record["sampler"]].append(record["share"])
    assert len(share["Langevin"]) == len(share["annealed Langevin"]) == 10
    assert 0.45 < min(share["Langevin"]) and max(share["Langevin"]) < 0.56
    assert 0.74 < min(share["annealed Langevin"]) and max(share["annealed Langevin"]) < 0.83


def test_a_learned_score_is_right_where_the_data_are_and_only_there():
    """Figure 2: the mean error is below 0.3 within 2 of a mode and above 2 beyond 4."""
    near, between, far = (record["error"] for record in low_density(seed=0))
    assert near < 0.3 and near < between < far and far > 2


def test_on_a_manifold_the_sliced_loss_has_no_minimum_unless_noise_is_added():
    """Figure 1: at 2,000 of its 10,000 steps the loss without noise is far below -1e5, and
    the one with noise has come more than half way to its minimum of -70,003, where it ends."""
    clean, noisy = manifold(seed=0, steps=2000)
    np.testing.assert_allclose(
        noisy["minimum"], -(14 / 1e-4 + 1 / 1.0001 + 1 / 0.2501) / 2, rtol=1e-6
    )
    assert clean["loss"] < -1e6 < -1e5 < noisy["minimum"]
    assert noisy["minimum"] < noisy["loss"] < noisy["minimum"] / 2
