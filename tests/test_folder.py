"""A folder of images: what is read, how it is turned and cut, and what is said of the rest."""

import numpy as np
import pytest
from PIL import Image

from score_jax.data.arrays import array
from score_jax.data.folder import folder
from score_jax.errors import UserError

equal = np.testing.assert_array_equal
SOME = np.random.default_rng(0).integers(0, 256, (6, 6, 3), np.uint8)


def refusal(call, *args, **options):
    with pytest.raises(UserError) as error:
        call(*args, **options)
    return str(error.value)


RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def framed(width, height, inside, outside=RED):
    """An image whose largest central square is `inside` and all else `outside`."""
    side = min(width, height)
    image = Image.new("RGB", (width, height), outside)
    image.paste(Image.new("RGB", (side, side), inside), ((width - side) // 2, (height - side) // 2))
    return image


@pytest.mark.parametrize("size", [(40, 20), (20, 40), (33, 20), (20, 20), (90, 10)])
@pytest.mark.parametrize("target", [4, 10, 16, 30])
def test_the_crop_is_the_central_square_and_sees_nothing_outside_it(tmp_path, size, target):
    """A red border beside a blue square leaves no trace of red: not one pixel's worth."""
    framed(*size, BLUE).save(tmp_path / "a.png")
    image = folder(path=str(tmp_path), size=target).examples[0]
    equal(image, np.broadcast_to(np.array(BLUE, np.uint8), (target, target, 3)))


def test_the_crop_is_all_of_the_central_square(tmp_path):
    """Its four corners, each of its own color, are the corners of what comes out."""
    corners = [RED, GREEN, BLUE, (255, 255, 255)]
    square = Image.new("RGB", (20, 20))
    for color, place in zip(corners, ((0, 0), (10, 0), (0, 10), (10, 10))):
        square.paste(Image.new("RGB", (10, 10), color), place)
    image = Image.new("RGB", (60, 20))
    image.paste(square, (20, 0))
    image.save(tmp_path / "a.png")
    x = folder(path=str(tmp_path), size=10).examples[0]
    equal([x[0, 0], x[0, -1], x[-1, 0], x[-1, -1]], corners)


def test_a_folders_images_are_cut_to_the_crop_that_is_asked_for(tmp_path):
    """The middle 4x4 of 8x8, untouched where the size is the crop's."""
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    found = folder(path=str(tmp_path), size=4, crop=4)
    np.testing.assert_array_equal(found.examples[0], pixels[2:6, 2:6])
    with pytest.raises(UserError, match="8x8 is smaller than config.data.crop = 9"):
        folder(path=str(tmp_path), size=4, crop=9)


def test_an_image_of_the_right_size_passes_through_untouched(tmp_path):
    Image.fromarray(SOME).save(tmp_path / "a.png")
    equal(folder(path=str(tmp_path), size=6).examples[0], SOME)


def test_shrinking_averages_and_does_not_pick(tmp_path):
    """Stripes of one pixel turn gray: whoever drops pixels gets black or white."""
    stripes = np.zeros((64, 64), np.uint8)
    stripes[:, ::2] = 255
    Image.fromarray(stripes).save(tmp_path / "a.png")
    x = folder(path=str(tmp_path), size=8, channels=1).examples[0].astype(int)
    assert np.abs(x[:, 1:-1] - 127.5).max() < 4


@pytest.mark.parametrize(
    ("color", "luma"), [(RED, 76), (GREEN, 150), (BLUE, 29), ((255, 255, 255), 255)]
)
def test_gray_is_the_luma_of_rec_601(tmp_path, color, luma):
    """0.299 R + 0.587 G + 0.114 B, of which the eye sees green the brightest."""
    Image.new("RGB", (5, 5), color).save(tmp_path / "a.png")
    data = folder(path=str(tmp_path), size=2, channels=1)
    equal(data.examples, np.full((1, 2, 2, 1), luma))


def test_a_gray_image_as_rgb_has_three_equal_channels(tmp_path):
    Image.new("L", (5, 5), 77).save(tmp_path / "a.png")
    equal(folder(path=str(tmp_path), size=2).examples, np.full((1, 2, 2, 3), 77))


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1"])
def test_every_8_bit_kind_of_png_is_read_as_what_it_shows(tmp_path, mode):
    Image.new("RGB", (4, 4), (255, 255, 255)).convert(mode).save(tmp_path / "a.png")
    equal(folder(path=str(tmp_path), size=4).examples, np.full((1, 4, 4, 3), 255))


def test_jpeg_files_are_read_under_either_suffix_in_either_case(tmp_path):
    for i, name in enumerate(["a.jpg", "b.JPEG", "c.JPG", "d.PNG"]):
        Image.new("L", (8, 8), 50 * i).save(tmp_path / name, "PNG" if i == 3 else "JPEG")
    x = folder(path=str(tmp_path), size=8, channels=1).examples.astype(int)
    assert np.abs(x - 50 * np.arange(4)[:, None, None, None]).max() <= 1


def test_webp_files_are_read_to_the_bit_where_they_have_lost_none(tmp_path):
    Image.fromarray(SOME).save(tmp_path / "a.webp", lossless=True)
    equal(folder(path=str(tmp_path), size=6).examples[0], SOME)


# How a camera that was held so stores what is upright, by EXIF's orientation.
STORED = {
    1: lambda x: x,
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: np.rot90(x),
    7: lambda x: np.rot90(x, 2).swapaxes(0, 1),
    8: lambda x: np.rot90(x, -1),
}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_photo_is_turned_as_the_camera_was_held_and_then_cut(tmp_path, kind, orientation):
    """Four corners, each of its own gray, in the middle square of a wide photo."""
    x = np.zeros((16, 32, 3), np.uint8)
    for gray, (row, column) in zip((250, 180, 110, 40), ((0, 8), (0, 16), (8, 8), (8, 16))):
        x[row : row + 8, column : column + 8] = gray
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](x)))
    stored.save(tmp_path / "a.png", kind, exif=exif, quality=100)
    seen = folder(path=str(tmp_path), size=16).examples[0].astype(int)
    assert np.abs(seen - x[:, 8:24]).max() <= 3


def test_a_photo_whose_exif_is_damaged_is_read_as_it_is_stored(tmp_path):
    Image.fromarray(SOME).save(tmp_path / "a.png", exif=b"Exif\0\0no such thing")
    equal(folder(path=str(tmp_path), size=6).examples[0], SOME)


def test_photos_that_are_enlarged_are_counted_in_one_line(tmp_path, capsys):
    for name, size in (("a", (40, 30)), ("b", (20, 90)), ("c", (16, 12)), ("d", (90, 31))):
        Image.new("L", size).save(tmp_path / f"{name}.png")
    folder(path=str(tmp_path), size=30)
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "2 of 4 images are smaller than" in said
    assert "config.data.size = 30" in said and "a side of 12 pixels" in said
    folder(path=str(tmp_path), size=12)
    assert capsys.readouterr().out == ""


def test_a_crop_that_is_enlarged_is_counted_as_well(tmp_path, capsys):
    Image.new("L", (90, 90)).save(tmp_path / "a.png")
    folder(path=str(tmp_path), size=30, crop=20)
    said = capsys.readouterr().out
    assert "1 of 1 images are smaller" in said and "a side of 20 pixels" in said


def test_a_folder_of_other_types_names_them_with_their_number_and_how_to_convert_them(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("a.HEIC", "more/b.heic", "c.gif", "notes.txt", "d.txt", "e.txt"):
        (tmp_path / name).write_bytes(b"x")
    message = refusal(folder, path=str(tmp_path), size=4)
    assert "found 3 .txt, 2 .heic, 1 .gif" in message
    assert "magick mogrify -format jpg *.heic" in message


def test_pictures_of_other_types_that_are_left_out_are_counted_in_one_line(tmp_path, capsys):
    paint(tmp_path, a=1)
    for name in ("b.heic", "c.heic", "notes.txt"):
        (tmp_path / name).write_bytes(b"x")
    assert values(tmp_path) == [1]
    said = capsys.readouterr().out
    assert said.count("\n") == 1 and "found 2 .heic" in said and ".txt" not in said


def paint(root, **files):
    """Writes gray images by path, each of one value."""
    for path, value in files.items():
        file = root / f"{path.replace('__', '/')}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4), value).save(file)


def values(root, **options):
    return list(folder(path=str(root), size=1, channels=1, **options).examples[:, 0, 0, 0])


def test_images_come_in_the_order_of_their_paths_however_they_were_made(tmp_path):
    paint(tmp_path, b__x=3, a__y=2, c=4, a__x=1, d__a__b=5)
    assert values(tmp_path) == [1, 2, 3, 4, 5]


def test_classes_are_the_first_folders_in_alphabetical_order(tmp_path):
    paint(tmp_path, dog__1=30, cat__b=20, cat__a__x=10, eel__1=40)
    data = folder(path=str(tmp_path), size=1, channels=1, by_class=True)
    equal(data.labels, [0, 0, 1, 2])
    equal(data.examples[:, 0, 0, 0], [10, 20, 30, 40])
    assert folder(path=str(tmp_path), size=1).labels is None


def test_an_image_in_no_class_is_named(tmp_path):
    paint(tmp_path, cat__a=1, loose=2)
    message = refusal(folder, path=str(tmp_path), size=1, by_class=True)
    assert "loose.png" in message and "no class folder" in message


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    paint(tmp_path, a=1, **{".b": 2, ".git__c": 3})
    (tmp_path / "notes.txt").write_text("not an image")
    assert values(tmp_path) == [1]


def test_a_link_out_of_the_folder_is_not_followed(tmp_path):
    inside, outside = tmp_path / "in", tmp_path / "out"
    paint(inside, a=1)
    paint(outside, secret=99)
    (inside / "b.png").symlink_to(outside / "secret.png")
    (inside / "c").symlink_to(outside, target_is_directory=True)
    assert values(inside) == [1]


def test_the_folder_itself_may_be_a_link(tmp_path):
    paint(tmp_path / "in", a=1)
    (tmp_path / "link").symlink_to(tmp_path / "in")
    assert values(tmp_path / "link") == [1]


def test_the_folder_one_stands_in_has_a_name(tmp_path, monkeypatch):
    paint(tmp_path / "birds", a=1)
    monkeypatch.chdir(tmp_path / "birds")
    assert folder(path=".", size=1).name == "birds"


def test_a_folder_without_images_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    message = refusal(folder, path=str(tmp_path), size=4)
    assert str(tmp_path) in message and "no .png, .jpg, .jpeg, .webp file" in message


def test_a_missing_folder_is_named_with_where_it_was_looked_for(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(folder, path="none", size=4)
    assert "data.path: no folder none" in message and str(tmp_path) in message
    assert "--config.data.path=" in message


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("x.npz", "data.name = 'array' takes it"),
        ("x.NPY", "data.name = 'array' takes it"),
        ("photos/a.jpg", "give the folder it lies in, data.path = photos"),
        ("photos/a.heic", "give the folder it lies in, data.path = photos"),
        ("x.zip", "data.name = 'array' takes .npy and .npz files"),
    ],
)
def test_a_file_in_a_folders_place_is_told_where_it_belongs(tmp_path, monkeypatch, name, says):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / name).write_text("x")
    message = refusal(folder, path=name, size=4)
    assert f"data.path: {name} is a file" in message and says in message


def test_a_folder_in_a_files_place_is_told_where_it_belongs(tmp_path):
    message = refusal(array, path=str(tmp_path))
    assert f"{tmp_path} is a folder" in message and "data.name = 'folder'" in message


@pytest.mark.parametrize("options", [{"size": 0}, {"size": -1}, {"size": 4, "channels": 2}])
def test_a_size_or_channels_that_cannot_be_are_refused(tmp_path, options):
    message = refusal(folder, path=str(tmp_path), **options)
    assert all(str(value) in message for value in options.values())
