"""Pictures hold what they are given, in its order."""

import numpy as np
from PIL import Image

from score_jax import plotting


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
