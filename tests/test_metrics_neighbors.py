"""Metrics of nearest neighbors: known cases, and loops over all pairs that differ in nothing."""

import numpy as np
import pytest

from score_jax.metrics import base
from score_jax.metrics.neighbors import density_coverage, nearest, precision_recall

close = np.testing.assert_allclose


def squared(x, y):
    return ((x - y) ** 2).sum()


def loop_radii(points, k):
    """Squared distances of the k-th nearest other point, oneself left out by index."""
    return [
        sorted(squared(p, q) for j, q in enumerate(points) if j != i)[k - 1]
        for i, p in enumerate(points)
    ]


def loop_balls(queries, points, k):
    """[N, M]: query i is in the ball of point j."""
    radii = loop_radii(points, k)
    return np.array([[squared(q, p) <= r for p, r in zip(points, radii)] for q in queries])


def loop_precision_recall(samples, real, k):
    in_real, in_samples = loop_balls(samples, real, k), loop_balls(real, samples, k)
    return in_real.any(1).mean(), in_samples.any(1).mean()


def loop_density_coverage(samples, real, k):
    balls = loop_balls(samples, real, k)
    return balls.sum() / (k * len(samples)), balls.any(0).mean()


def gaussians(rng):
    return rng.standard_normal((40, 3)), 1.2 * rng.standard_normal((50, 3)) + 0.5


def lattice(rng):
    """Duplicates within and between the sets, and distances that tie."""
    return rng.integers(0, 3, (40, 2)) * 1.0, rng.integers(0, 4, (50, 2)) * 1.0


def rounded_lattice(rng):
    """The same in numbers that are no binary fractions, far from zero."""
    return tuple(0.1 * x + 1000.1 for x in lattice(rng))


def copies(rng):
    """Half of the samples are rows of the data, some several times."""
    real = rng.standard_normal((50, 30)) + 1e3
    return np.concatenate(
        [real[rng.integers(0, 50, 20)], rng.standard_normal((20, 30)) + 1e3]
    ), real


def collapsed(rng):
    """All samples are one point, that of a real row."""
    real = rng.standard_normal((30, 5)) * 0.3
    return np.repeat(real[3:4], 20, axis=0), real


def outlier(rng):
    """A point so far away that the norms say nothing of the others' distances."""
    a, b = gaussians(rng)
    b[4] = 1e9
    return a, b


SETS = [gaussians, lattice, rounded_lattice, copies, collapsed, outlier]


@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("block", [2**24, 120])
def test_the_metrics_are_exactly_those_of_loops_over_all_pairs(make, k, block, monkeypatch):
    samples, real = make(np.random.default_rng(k))
    monkeypatch.setattr(base, "BLOCK", block)  # 120: two rows at a time
    assert precision_recall(samples, real, k=k) == loop_precision_recall(samples, real, k)
    assert density_coverage(samples, real, k=k) == loop_density_coverage(samples, real, k)


@pytest.mark.parametrize("make", SETS)
@pytest.mark.parametrize("block", [2**24, 120])
def test_the_nearest_are_exactly_those_of_loops_over_all_pairs(make, block, monkeypatch):
    """Of equally near ones the lower index: Python's sort is stable."""
    queries, points = make(np.random.default_rng(0))
    monkeypatch.setattr(base, "BLOCK", block)
    indices, distances = nearest(queries, points, k=4)
    for query, found, near in zip(queries, indices, distances):
        far = [squared(query, p) for p in points]
        expected = sorted(range(len(points)), key=far.__getitem__)[:4]
        assert found.tolist() == expected
        assert near.tolist() == [np.sqrt(far[i]) for i in expected]


def test_a_row_of_the_points_is_nearest_to_itself_and_one_query_is_enough():
    x = np.random.default_rng(0).standard_normal((100, 20)) + 1e4
    indices, distances = nearest(x, x)
    assert indices[:, 0].tolist() == list(range(100)) and (distances == 0.0).all()
    indices, distances = nearest(x[7:8], x, k=100)
    assert sorted(indices[0]) == list(range(100)) and (np.diff(distances[0]) >= 0).all()


def test_identical_sets_have_all_of_everything():
    """A real row lies in its own ball and in those of which it is a neighbor: k of them on
    average, so the density is (k + 1)/k."""
    x = np.random.default_rng(0).standard_normal((200, 10))
    assert precision_recall(x, x) == (1.0, 1.0)
    assert density_coverage(x, x, k=5) == (6 / 5, 1.0)


def test_sets_far_apart_have_nothing_of_anything():
    x = np.random.default_rng(0).standard_normal((200, 10))
    assert precision_recall(x, x + 100.0) == (0.0, 0.0)
    assert density_coverage(x, x + 100.0) == (0.0, 0.0)


def test_half_of_the_modes_is_precise_and_recalls_half():
    rng = np.random.default_rng(0)
    modes = 100.0 * np.eye(4)
    real = (modes[:, None] + rng.standard_normal((4, 50, 4))).reshape(200, 4)
    samples = (modes[:2, None] + 0.5 * rng.standard_normal((2, 50, 4))).reshape(100, 4)
    precision, recall = precision_recall(samples, real)
    assert precision == 1.0 and 0.1 < recall <= 0.5
    density, coverage = density_coverage(samples, real)
    assert density > 1.0 and 0.1 < coverage <= 0.5


def test_stray_samples_cost_precision_only():
    x = np.random.default_rng(0).standard_normal((100, 3))
    stray = np.concatenate([x, 50.0 + 10.0 * np.random.default_rng(1).standard_normal((25, 3))])
    assert precision_recall(stray, x) == (0.8, 1.0)
    assert density_coverage(stray, x, k=5) == (0.96, 1.0)  # 0.8 of 6/5


def test_the_border_of_a_ball_belongs_to_it():
    """Real 0, 2, 10 with k = 1: radii 2, 2 and 8; a sample at -2 is on the border of the first."""
    real, samples = np.array([[0.0], [2.0], [10.0]]), np.array([[-2.0], [-2.5]])
    assert precision_recall(samples, real, k=1).precision == 0.5
    assert density_coverage(samples, real, k=1) == (0.5, 1 / 3)


def test_duplicates_are_neighbors_and_their_balls_are_points():
    """Left out of its neighbors is the row itself, not all that is at distance zero."""
    real = np.array([[0.0], [0.0], [5.0], [5.0]])
    samples = np.array([[0.0], [1.0]])
    assert precision_recall(samples, real, k=1) == (0.5, 0.5)
    assert precision_recall(samples + 1e-9, real, k=1).precision == 0.0


def test_density_of_crowded_samples_is_the_number_of_balls_over_k():
    """Samples all at the center of 4 points on a circle: in the ball of each."""
    real = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    assert density_coverage(np.zeros((7, 2)), real, k=2) == (4 / 2, 1.0)


@pytest.mark.parametrize("k", [0, 4, 5])
def test_more_neighbors_than_there_are_others_are_refused(k):
    few, many = np.arange(8.0).reshape(4, 2), np.arange(40.0).reshape(20, 2)
    for pair in ((few, many), (many, few)):
        with pytest.raises(ValueError, match=f"expected k from 1 to .*, got {k}"):
            precision_recall(*pair, k=k)
    with pytest.raises(ValueError, match=f"expected k from 1 to 3, .* 4 rows has, got {k}"):
        density_coverage(many, few, k=k)


@pytest.mark.parametrize("k", [0, 5])
def test_more_nearest_than_there_are_points_are_refused(k):
    with pytest.raises(ValueError, match=f"expected k from 1 to the 4 points, got {k}"):
        nearest(np.zeros((2, 3)), np.zeros((4, 3)), k=k)
