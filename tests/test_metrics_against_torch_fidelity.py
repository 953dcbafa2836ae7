"""Our figures and torch-fidelity's, of the same features.

golden/torch_fidelity.npz holds what torch-fidelity 0.4.0 (PyTorch 2.13, NumPy 2.4) answered
to `features` and `logits` below, in float64, by the functions that `theirs` calls. Where it is
installed it is asked again.
"""

import importlib
from pathlib import Path

import numpy as np
import pytest

from score_jax.metrics.frechet import frechet_distance, frechet_distance_of_moments, moments
from score_jax.metrics.kernel import kernel_distance_of_subsets
from score_jax.metrics.neighbors import precision_recall
from score_jax.metrics.score import inception_score

close = np.testing.assert_allclose
FILE = Path(__file__).parent / "golden" / "torch_fidelity.npz"
SEED = 2020
KID = dict(subsets=20, size=100)
NEIGHBORS = (3, 5)


def features():
    """Correlated samples [300, 16] and data [250, 16] that overlap."""
    rng = np.random.Generator(np.random.PCG64(7))
    mix = rng.standard_normal((16, 16)) / 4.0
    a, b = rng.standard_normal((300, 16)), rng.standard_normal((250, 16))
    return a @ mix + 0.1, b @ (mix + rng.standard_normal((16, 16)) / 10.0)


def logits():
    """[301, 10]: a number that ten splits do not divide."""
    return 2.0 * np.random.Generator(np.random.PCG64(8)).standard_normal((301, 10))


def ours():
    a, b = features()
    found = {"fid": frechet_distance(a, b)}
    found["kid"] = kernel_distance_of_subsets(a, b, **KID, rng=np.random.RandomState(SEED))
    found["isc"] = inception_score(logits(), rng=np.random.RandomState(SEED))
    found["isc_in_order"] = inception_score(logits(), splits=7)
    for k in NEIGHBORS:
        found[f"precision_recall_{k}"] = precision_recall(a, b, k=k)
    return found


def theirs():
    import torch

    part = lambda name: importlib.import_module(f"torch_fidelity.metric_{name}")
    a, b = (torch.from_numpy(x) for x in features())
    quiet, fid, prc = dict(verbose=False), part("fid"), part("prc")
    statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
    kid = dict(kid_subsets=KID["subsets"], kid_subset_size=KID["size"], rng_seed=SEED)
    found = {"fid": fid.fid_statistics_to_metric(*statistics, False)}
    found["kid"] = part("kid").kid_features_to_metric(a, b, **kid, **quiet)
    isc, x = part("isc").isc_features_to_metric, torch.from_numpy(logits())
    found["isc"] = isc(x, 10, True, SEED)
    found["isc_in_order"] = isc(x, 7, False, SEED)
    for k in NEIGHBORS:
        answer = prc.prc_features_to_metric(a, b, prc_neighborhood=k, **quiet)
        found[f"precision_recall_{k}"] = {name: answer[name] for name in ("precision", "recall")}
    return {name: np.array(list(values.values())) for name, values in found.items()}


def assert_equal_to(expected):
    found = ours()
    assert set(found) == set(expected)
    for name, value in found.items():
        close(np.atleast_1d(value), expected[name], rtol=1e-6, err_msg=name)


def test_our_figures_are_those_torch_fidelity_gave():
    with np.load(FILE, allow_pickle=False) as file:
        assert_equal_to({name: file[name] for name in file.files})


def test_our_figures_are_those_torch_fidelity_gives():
    pytest.importorskip("torch_fidelity", exc_type=ImportError)
    assert_equal_to(theirs())


def test_the_distance_of_moments_is_torch_fidelity_s_too():
    a, b = features()
    with np.load(FILE, allow_pickle=False) as file:
        close(frechet_distance_of_moments(moments(a), moments(b)), file["fid"][0], rtol=1e-6)


def test_torch_fidelity_counts_duplicates_as_we_do_where_its_distances_are_exact():
    """Both leave a point out of its own neighbors once, not its duplicates; both take <=.

    They differ where torch.cdist's matrix products round: a distance of zero may come out as
    1e-8, and a tie either way. Small whole numbers do not round.
    """
    torch = pytest.importorskip("torch")
    pytest.importorskip("torch_fidelity", exc_type=ImportError)
    rng = np.random.default_rng(0)
    a, b = (rng.integers(0, 3, (n, 4)).astype(float) for n in (40, 50))
    prc = importlib.import_module("torch_fidelity.metric_prc")
    answer = prc.calculate_precision_recall_full(torch.from_numpy(a), torch.from_numpy(b), 3)
    close(precision_recall(a, b), answer, rtol=1e-6)
