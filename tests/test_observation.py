"""Observations and the operators of images, against matrices, NumPy and SciPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import make_process
from jax.scipy.sparse.linalg import cg
from scipy.ndimage import gaussian_filter
from test_samplers import OPTIONS

from score_jax.errors import UserError
from score_jax.inverse.observation import (
    Observation,
    observe,
    pseudo_inverse,
    require_memoryless,
    solve,
)
from score_jax.inverse.operators import blur, downsample, gray, mask, random_projection
from score_jax.samplers import SAMPLERS
from score_jax.samplers.ancestral import ancestral

pytestmark = pytest.mark.usefixtures("quick_compile")

close = np.testing.assert_allclose

KNOWN = np.random.default_rng(3).random((4, 6)) < 0.4
MATRIX = np.random.default_rng(4).normal(size=(2, 4))
RANK_ONE = np.outer([1.0, -2.0, 0.5], [0.3, 1.1])  # no pair of its rows tells more than one

CASES = {  # name: (forward, the shape of x, that of y)
    "mask": (mask(KNOWN), (4, 6, 3), (3 * KNOWN.sum(),)),
    "mask of a point": (mask([True, False, True]), (3,), (2,)),
    "mask of nothing": (mask(np.zeros((4, 6))), (4, 6, 3), (0,)),
    "gray": (gray(), (4, 6, 3), (4, 6, 1)),
    "downsample": (downsample(2), (4, 6, 3), (2, 3, 3)),
    "blur": (blur(0.7), (4, 6, 3), (4, 6, 3)),
    "random_projection": (random_projection(0, 5, (4, 2)), (4, 2), (5,)),
    "matrix": (lambda x: MATRIX @ x, (4,), (2,)),
    "rank one": (lambda x: RANK_ONE @ x, (2,), (3,)),
    "zero": (lambda x: 0.0 * x[:2], (3,), (2,)),
}
TIGHT = {"mask", "mask of a point", "gray", "downsample", "random_projection"}  # A Aᵀ = λ I


def image(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def as_matrix(forward, shape):
    """A [M, D], column by column."""
    units = np.eye(int(np.prod(shape))).reshape(-1, *shape)
    return np.asarray(jax.jit(jax.vmap(lambda x: forward(x).ravel()))(units)).T


@functools.cache
def evaluated(name):
    """A as a matrix, v, Aᵀ v, x, y - A x, r and A⁺ r for y = 1, as vectors, in one program."""
    forward, shape, y_shape = CASES[name]
    observation = observe(np.ones(y_shape), forward, 0.1, shape)
    v, x, r = image(y_shape, 1), image(shape, 1), image(y_shape, 2)

    @jax.jit
    def program(v, x, r):
        return observation.adjoint(v), observation.residual(x), pseudo_inverse(observation, r)

    adjoint, residual, inverse = program(v, x, r)
    all_of_them = (v, adjoint, x, residual, r, inverse)
    return as_matrix(forward, shape), *(np.asarray(a).ravel() for a in all_of_them)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_adjoint_is_the_transposed_matrix(name, x64):
    matrix, v, adjoint, *_ = evaluated(name)
    close(adjoint, matrix.T @ v, atol=1e-12)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_residual_is_what_x_does_not_explain(name, x64):
    matrix, _, _, x, residual, *_ = evaluated(name)
    close(residual, 1.0 - matrix @ x, atol=1e-12)


@pytest.mark.parametrize("name", sorted(CASES))
def test_the_pseudo_inverse_is_the_matrix_s(name, x64):
    """Also of a singular operator, and of an r that no x makes: the least squares' x."""
    matrix, *_, r, inverse = evaluated(name)
    close(inverse, np.linalg.pinv(matrix) @ r, atol=1e-8)


@pytest.mark.parametrize("name", sorted(TIGHT))
def test_where_a_at_is_a_multiple_of_i_one_iteration_is_exact(name, x64):
    forward, shape, y_shape = CASES[name]
    observation = observe(np.ones(y_shape), forward, 0.0, shape)
    r = jnp.asarray(image(y_shape, 2))
    product = lambda v: observation.forward(observation.adjoint(v))
    again = jax.jit(lambda r: product(solve(product, r, iterations=1)))
    close(again(r), r, rtol=1e-10)


def test_a_rank_that_float32_cannot_tell_is_not_divided_by():
    """y contradicts itself by more than A⁺ could be asked to explain: least squares, not noise."""
    rows = np.array([[1.0, 0.5, 0.3], [0.1, 0.7, -0.3], [1.1, 1.2, 0.0]])  # the third is the sum
    y = np.array([1.0, 2.0, 7.0])
    forward = lambda x: jnp.asarray(rows, jnp.float32) @ x
    got = pseudo_inverse(observe(y, forward, 0.0, (3,)), jnp.asarray(y, jnp.float32))
    close(got, np.linalg.pinv(rows) @ y, rtol=1e-5)


# ----------------------------------------------------------------------------- operators


def test_a_mask_keeps_the_known_pixels_in_their_order():
    x = image((4, 6, 3))
    close(mask(KNOWN)(jnp.asarray(x)), x[KNOWN].ravel(), rtol=1e-6)
    each = np.random.default_rng(5).random((4, 6, 3)) < 0.5
    close(mask(each.astype(int))(jnp.asarray(x)), x[each], rtol=1e-6)


def test_gray_is_the_weighted_mean_of_the_channels():
    x = image((4, 6, 3))
    expected = 0.299 * x[..., :1] + 0.587 * x[..., 1:2] + 0.114 * x[..., 2:]
    close(gray()(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)
    close(gray((2, 2, 2))(jnp.asarray(x)), x.mean(-1, keepdims=True), rtol=1e-5, atol=1e-6)


def test_downsample_is_the_mean_of_each_block():
    x = image((4, 6, 3))
    expected = [[x[i : i + 2, j : j + 2].mean((0, 1)) for j in (0, 2, 4)] for i in (0, 2)]
    close(downsample(2)(jnp.asarray(x)), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("width", [0.5, 1.3, 6.0])
def test_blur_is_scipys_with_its_mirror(x64, width):
    """To the kernel's tails, which SciPy cuts off; the image may be smaller than the kernel."""
    x = image((5, 7, 2))
    expected = gaussian_filter(x, (width, width, 0), mode="reflect", truncate=9.0)
    close(blur(width)(jnp.asarray(x)), expected, atol=1e-12)


def test_blur_is_symmetric_positive_and_of_norm_one(x64):
    matrix = as_matrix(blur(0.7), (4, 6, 1))
    close(matrix, matrix.T, atol=1e-15)
    values = np.linalg.eigvalsh(matrix)
    assert values[0] > 0 and abs(values[-1] - 1.0) < 1e-12


def test_a_random_projection_is_orthonormal_and_its_seeds_own(x64):
    make = lambda seed: as_matrix(random_projection(seed, 5, (4, 2)), (4, 2))
    close(make(0) @ make(0).T, np.eye(5), atol=1e-12)
    assert np.array_equal(make(0), make(0)) and abs(make(0) - make(1)).max() > 0.1


IMAGE, GRAY_IMAGE = (4, 6, 3), (4, 6, 1)
REFUSED = [
    (lambda: mask([0.5, 1.0]), "booleans, or 0 for unknown and 1 for known"),
    (lambda: mask(KNOWN)(np.zeros((6, 4, 3))), r"mask of shape \(4, 6\) does not fit x of shape"),
    (lambda: gray((1.0, 2.0)), "gray needs three weights"),
    (lambda: gray((1.0, -2.0, 3.0)), "gray needs three weights"),
    (lambda: gray()(np.zeros(GRAY_IMAGE)), r"images of 3 channels, got shape \(4, 6, 1\)"),
    (lambda: gray()(np.zeros(3)), r"gray needs an image \[H, W, C\], got shape \(3,\)"),
    (lambda: downsample(0), "factor must be at least 1, got 0"),
    (lambda: downsample(4)(np.zeros(IMAGE)), "factor = 4 does not divide the 4 x 6 pixels"),
    (lambda: blur(0.0), "width must be positive, got 0.0"),
    (lambda: blur(1.0)(np.zeros(3)), r"blur needs an image \[H, W, C\]"),
    (lambda: random_projection(0, 9, (4, 2)), r"must lie in 1 .. 8, .*, got 9"),
    (lambda: random_projection(0, 10**7, (10**7,)), "take fewer"),
    (lambda: random_projection(0, 2, (4, 2))(np.zeros(8)), r"of shape \(4, 2\), got x of \(8,\)"),
]


@pytest.mark.parametrize(("make", "message"), REFUSED)
def test_an_operator_refuses_what_does_not_fit(make, message):
    with pytest.raises(UserError, match=message):
        make()


# ------------------------------------------------------------------------------- observe


@jax.custom_vjp
def doubled_in_reverse(x):
    return x[:2]


doubled_in_reverse.defvjp(
    lambda x: (x[:2], None), lambda _, v: (jnp.concatenate([2.0 * v, jnp.zeros(2)]),)
)


@pytest.mark.parametrize(
    ("forward", "message"),
    [
        (lambda x: x[:2] + 0.01, r"must be linear.*subtract forward\(0\)"),
        (lambda x: jnp.abs(x[:2]), "must be linear"),
        (lambda x: x[:2] * x[2:], "must be linear"),
        (lambda x: jnp.clip(x[:2], -1.0, 1.0), "must be linear"),
        (lambda x: jnp.sqrt(x[:2]), "must be linear.*differ by nan"),
        (doubled_in_reverse, "gradient is not its own: .*custom_vjp"),
        (lambda x: jax.lax.stop_gradient(x[:2]), "gradient is not its own: .*stop_gradient"),
        (lambda x: x[:3], r"makes shape \(3,\) of x \(4,\), but y has shape \(2,\)"),
        (lambda x: jnp.eye(2) @ x, r"could not be applied to x of shape \(4,\): TypeError: .*dot"),
        (lambda x: np.asarray(x)[:2], "could not be applied.*TracerArrayConversionError"),
        (lambda x: (x[:1], x[1:2]), "one array of real numbers .*got tuple"),
        (lambda x: jnp.fft.fft(x)[:2], "one array of real numbers .*got complex64"),
        (mask(np.ones((2, 2))), "a mask of shape"),  # the operator's own message
    ],
)
def test_observe_refuses_what_is_no_linear_function(forward, message):
    with pytest.raises(UserError, match=message):
        observe(np.zeros(2), forward, 0.1, (4,))


@pytest.mark.parametrize(
    ("y", "noise", "message"),
    [
        ([1.0, np.nan], 0.1, "must be real and finite"),
        ([1.0, 1j], 0.1, "must be real and finite"),
        ([1.0, 2.0], -0.1, "noise must be finite and at least 0, got -0.1"),
        ([1.0, 2.0], np.inf, "noise must be finite and at least 0, got inf"),
        ([1.0, 2.0], np.nan, "noise must be finite and at least 0, got nan"),
    ],
)
def test_observe_refuses_values_that_cannot_be(y, noise, message):
    with pytest.raises(UserError, match=message):
        observe(y, lambda x: x[:2], noise, (4,))


def test_a_large_operator_in_float32_passes_the_check():
    """What is refused is wrong, not rounded: 10⁵ numbers, each a mean of 64."""
    forward = downsample(8)
    observation = observe(np.zeros((64, 64, 3)), forward, 0.0, (512, 512, 3))
    assert observation.y.dtype == jnp.float32


# --------------------------------------------------------------------------------- solve


def system(asymmetry, n=30, seed=0):
    """(M, b, M's symmetric part): eigenvalues from 1e-3 to 1, and what is not symmetric."""
    rng = np.random.default_rng(seed)
    q, _ = np.linalg.qr(rng.normal(size=(n, n)))
    values = np.geomspace(1e-4, 1.0, n) + 1e-3
    symmetric = q @ np.diag(values) @ q.T
    b = q @ (np.sqrt(values) * rng.normal(size=n))
    return symmetric + asymmetry * rng.normal(size=(n, n)) / np.sqrt(2 * n), b, symmetric


@functools.partial(jax.jit, static_argnums=3)
def solved(matrix, b, iterations, method=solve):
    return method(lambda v: matrix @ v, b, iterations=iterations)


def gradients(product, b, iterations):
    return cg(product, b, maxiter=iterations, tol=1e-12)[0]


def test_a_symmetric_system_is_solved_in_as_many_iterations_as_it_has_eigenvalues(x64):
    q, _ = np.linalg.qr(np.random.default_rng(0).normal(size=(9, 9)))
    matrix = q @ np.diag(np.repeat([0.1, 1.0, -2.0], 3)) @ q.T  # also where some are negative
    b = np.random.default_rng(1).normal(size=9)
    error = lambda k: np.linalg.norm(matrix @ solved(matrix, b, k) - b)
    assert error(3) < 1e-12 < 1e-2 < error(2)


@pytest.mark.parametrize("asymmetry", [0.0, 0.3, 10.0])
def test_no_iteration_makes_the_residual_larger_whatever_the_matrix(x64, asymmetry):
    matrix, b, _ = system(asymmetry)
    error = lambda k: np.linalg.norm(matrix @ solved(matrix, b, k) - b)
    assert np.all(np.diff([np.linalg.norm(b), *map(error, (1, 2, 4, 8, 16, 32))]) <= 1e-12)


def test_where_the_matrix_is_not_symmetric_conjugate_gradients_leave_and_this_stays(x64):
    """The error after 20 iterations, as |S u - b|/|b| with S the symmetric part."""

    def errors(seed, method):
        matrix, b, symmetric = system(0.03, seed=seed)
        u = solved(matrix, b, 20, method)
        return np.linalg.norm(symmetric @ u - b) / np.linalg.norm(b)

    assert max(errors(seed, solve) for seed in range(10)) < 0.3
    assert np.median([errors(seed, gradients) for seed in range(10)]) > 3.0


def test_solve_keeps_its_size_from_the_smallest_numbers_to_the_largest():
    """Squares of them would leave float32."""
    for size in (1e-30, 1.0, 1e30):
        b = jnp.asarray([1.0, -2.0], jnp.float32) * size
        got = solve(lambda v: jnp.asarray([2.0, 4.0]) * v, b, iterations=5)
        close(got, b / np.array([2.0, 4.0]), rtol=1e-5)


def test_solve_tells_nan_and_ends_with_nothing_to_solve():
    assert np.isnan(solve(lambda v: v, jnp.array([1.0, jnp.nan]), iterations=5)).all()
    assert np.array_equal(solve(lambda v: v, jnp.zeros(3), iterations=5), np.zeros(3))
    assert np.array_equal(solve(lambda v: 0.0 * v, jnp.ones(3), iterations=5), np.zeros(3))


def test_solve_does_not_know_its_batch_mates(x64):
    matrices = jnp.stack([system(0.0, 6, seed)[0] for seed in range(3)])
    b = jnp.asarray(image((3, 6)))
    together = jax.vmap(solved, (0, 0, None))(matrices, b, 4)
    close(together, [solved(*pair, 4) for pair in zip(matrices, b)], rtol=1e-12)


# -------------------------------------------------------------------- samplers with a memory

WITH_MEMORY = {"mala", "adaptive", "dpm_solver_pp_2m", "dpm_solver_pp_3m", "deis", "unipc"}
WITH_MEMORY |= {"adams"}


@pytest.mark.parametrize("name", sorted(SAMPLERS))
def test_a_sampler_with_a_memory_is_told_from_the_others(name):
    sampler = SAMPLERS[name](make_process("vp"), **OPTIONS[name])
    if name not in WITH_MEMORY:
        require_memoryless(sampler, "repaint")
        return
    with pytest.raises(UserError, match="repaint moves x after every step.*pigdm or mmps"):
        require_memoryless(sampler, "repaint")


def test_a_sampler_that_is_to_be_calibrated_is_refused_until_it_is():
    sampler = ancestral(make_process("vp"), steps=3, variance="analytic")
    with pytest.raises(UserError, match=r"dps needs a sampler whose schedule is known.*calibrate"):
        require_memoryless(sampler, "dps")
    require_memoryless(sampler.calibrate(np.full(sampler.steps, 0.5)), "dps")


def test_an_observation_of_its_own_may_be_made_for_every_example():
    """As under vmap: y is traced, and nothing is checked."""
    x, y = jnp.asarray(image((3, 4))), jnp.asarray(image((3, 2)))
    forward = lambda x: jnp.asarray(MATRIX, x.dtype) @ x
    each = lambda x, y: pseudo_inverse(Observation(y, forward, 0.0, (4,)), y - forward(x))
    got = jax.vmap(each)(x, y)
    close(got, (y - x @ MATRIX.T) @ np.linalg.pinv(MATRIX).T, rtol=1e-4, atol=1e-5)
