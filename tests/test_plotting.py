"""Pictures hold what they are given, in its order."""

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import tiny_images
from matplotlib.figure import Figure
from PIL import Image

from score_jax import pictures, plotting
from score_jax.build import build
from score_jax.densities import three_modes
from score_jax.errors import UserError
from score_jax.processes import PROCESSES


def test_a_grid_holds_large_images_unchanged_row_by_row():
    images = np.random.default_rng(0).integers(0, 256, (5, 64, 70, 3), dtype=np.uint8)
    picture, gap = plotting.grid(images), plotting.MARGIN
    assert picture.shape == (gap + 2 * (64 + gap), gap + 3 * (70 + gap), 3)
    for i, image in enumerate(images):
        top, left = gap + i // 3 * (64 + gap), gap + i % 3 * (70 + gap)
        assert np.array_equal(picture[top : top + 64, left : left + 70], image)


def test_a_small_image_is_enlarged_about_its_center():
    """A gray ramp stays a ramp, a constant stays itself, the mean stays the mean."""
    ramp = np.broadcast_to(np.arange(0, 160, 20, dtype=np.uint8)[None, :, None], (8, 8, 1))
    inner = plotting.grid(ramp[None])[4:-4, 4:-4, 0].astype(float)
    assert inner.shape == (64, 64) and abs(inner.mean() - ramp.mean()) < 1
    np.testing.assert_allclose(inner[0, 8:-8], 20 * ((np.arange(8, 56) + 0.5) / 8 - 0.5), atol=1.5)
    flat = plotting.grid(np.full((1, 8, 8, 1), 77, np.uint8))[4:-4, 4:-4]
    assert np.all(flat == 77)


def test_a_picture_of_points_is_drawn_beside_the_data(tmp_path):
    rng = np.random.default_rng(0)
    picture = plotting.picture(rng.standard_normal((50, 2)), rng.standard_normal((60, 2)))
    left, right = np.array_split(picture.astype(int), 2, axis=1)
    assert (left < 200).any(axis=-1).sum() > 50 and (right < 200).any(axis=-1).sum() > 50
    plotting.save(picture, tmp_path / "points.png")
    assert np.array_equal(np.asarray(Image.open(tmp_path / "points.png")), picture)
    assert [file.name for file in tmp_path.iterdir()] == ["points.png"]


def test_a_strip_has_a_row_for_each_image_and_a_column_for_each_time():
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 64, 64, 3), dtype=np.uint8)
    picture, step = plotting.strip(images), 64 + plotting.MARGIN
    for time in range(5):
        for i in range(2):
            top, left = plotting.MARGIN + i * step, plotting.MARGIN + time * step
            assert np.array_equal(picture[top : top + 64, left : left + 64], images[time, i])


@pytest.mark.parametrize("suffix", ["png", "gif"])
def test_an_animation_holds_its_pictures_in_order_and_lasts_as_long_as_told(tmp_path, suffix):
    pictures = [np.full((40, 60, 3), 20 * i, np.uint8) for i in range(8)]
    plotting.animate(pictures, tmp_path / f"a.{suffix}", seconds=2.0)
    with Image.open(tmp_path / f"a.{suffix}") as file:
        assert file.n_frames == 8 and file.info["loop"] == 0
        lasts = []
        for i, picture in enumerate(pictures):
            file.seek(i)
            lasts.append(file.info["duration"])
            seen = np.asarray(file.convert("RGB")).astype(int)
            assert np.abs(seen - picture).max() <= (0 if suffix == "png" else 10)
    assert sum(lasts) == pytest.approx(2000, abs=80) and lasts[-1] > 500


@pytest.mark.parametrize(
    ("name", "shapes", "message"),
    [("a.jpg", [(4, 4, 3)], "a .png or a .gif"), ("a.gif", [], "one or more"),
     ("a.gif", [(4, 4, 3), (4, 5, 3)], "all of one size")],
)  # fmt: skip
def test_what_is_no_animation_is_refused(tmp_path, name, shapes, message):
    with pytest.raises(UserError, match=message):
        plotting.animate([np.zeros(shape, np.uint8) for shape in shapes], tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_arrows_point_where_the_score_does_and_longer_scores_have_longer_arrows():
    p, axes = three_modes(), Figure().subplots()
    plotting.score_field(axes, p.score, (-2.0, 2.0, -1.0, 3.0), arrows=9)
    (arrows,) = axes.collections
    score = np.array([p.score(jnp.asarray(x)) for x in arrows.XY])
    drawn = np.stack([arrows.U, arrows.V], axis=1)
    length, longest = np.linalg.norm(score, axis=1), np.linalg.norm(drawn, axis=1)
    np.testing.assert_allclose(
        drawn / longest[:, None], score / length[:, None], atol=1e-3, rtol=1e-3
    )
    order = np.argsort(length)
    assert np.all(np.diff(longest[order]) > -1e-6 * longest.max())
    assert axes.get_xlim() == (-2.0, 2.0) and axes.get_ylim() == (-1.0, 3.0)


def test_a_density_is_darkest_at_its_mode_and_its_constant_does_not_matter():
    p, axes = three_modes(), Figure().subplots(1, 2)
    plotting.density(axes[0], p.log_prob, (-2.0, 2.0, -2.0, 2.0))
    plotting.density(axes[1], lambda x: p.log_prob(x) - 7.0, (-2.0, 2.0, -2.0, 2.0))
    first, second = (np.asarray(axis.images[0].get_array()) for axis in axes)
    np.testing.assert_allclose(first, second, atol=1e-5)
    row, column = np.unravel_index(first.argmax(), first.shape)
    x = np.linspace(-2.0, 2.0, 160)
    assert np.hypot(x[column] + 1.0, x[row] - 0.4) < 0.05 and first.max() == 1.0


def test_a_geometric_ladder_is_drawn_as_a_straight_line():
    axes = Figure().subplots()
    plotting.ladder(axes, PROCESSES["ncsn"](sigma_min=0.01, sigma_max=1.0, levels=10))
    plotting.ladder(axes, PROCESSES["vp"](beta_min=0.1, beta_max=20.0))
    ratios = axes.lines[0].get_ydata()
    assert axes.get_yscale() == "log" and len(ratios) == 10
    np.testing.assert_allclose(np.diff(np.log(ratios)), np.log(100.0) / 9, rtol=1e-4)


def test_paths_end_in_their_dots():
    x, axes = np.random.default_rng(0).standard_normal((7, 3, 2)), Figure().subplots()
    plotting.paths(axes, x)
    assert len(axes.lines) == 3
    np.testing.assert_array_equal(axes.lines[1].get_xydata(), x[:, 1])
    np.testing.assert_array_equal(axes.collections[0].get_offsets(), x[-1])


def test_real_images_stand_beside_samples_in_the_same_places(tmp_path):
    """As many, spread evenly over the data; in columns of classes where the samples are."""
    experiment = build(tiny_images(evaluation=dict(samples=30)))
    examples, labels = experiment.data.examples, experiment.data.labels
    path = tmp_path / "samples" / "data.png"
    pictures.real(experiment, tmp_path)
    shown = np.asarray(Image.open(path))
    expected = examples[np.arange(30) * len(examples) // 30]
    np.testing.assert_array_equal(shown, plotting.grid(expected))
    samples = np.zeros((30, *experiment.data.shape), np.uint8)
    assert shown.shape == pictures.picture(experiment, samples).shape

    config = tiny_images(evaluation=dict(samples=30))
    config["model"] |= dict(classes=10)
    pictures.real(build(config), tmp_path)
    shown = np.asarray(Image.open(path))
    ours = [plotting.grid(image[None])[4:-4, 4:-4] for image in examples]
    for i in range(30):
        top, left = (4 + 68 * k for k in divmod(i, 10))
        image = shown[top : top + 64, left : left + 64]
        found = {labels[j] for j, other in enumerate(ours) if np.array_equal(image, other)}
        assert found == {i % 10}

    few = experiment._replace(data=experiment.data._replace(examples=examples[:5]))
    pictures.real(few, tmp_path)
    assert plotting.images_in(np.asarray(Image.open(path)), (8, 8, 1)) == 5
