import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from oneformer_jax.data.datasets.images import image_size, list_images, read_header, read_image, read_panoptic
from oneformer_jax.errors import DataError


def test_images_are_turned_upright(tmp_path: Path) -> None:
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[0, 0] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the first row is the right edge
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=exif)
    image = read_image(tmp_path / "turned.png")
    assert image.shape == (6, 4, 3)
    assert image[0, 3].tolist() == [255, 255, 255]
    assert image_size(tmp_path / "turned.png") == (6, 4)


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "1"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "image.tif"
    Image.fromarray(np.full((3, 5, 3), 255, np.uint8)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (3, 5, 3)
    assert (image == 255).all()


@pytest.mark.parametrize("read", [read_image, read_panoptic, image_size])
def test_files_that_cannot_be_read_are_named(tmp_path: Path, read: object) -> None:
    assert callable(read)
    with pytest.raises(DataError, match=r"none.png.*does not exist"):
        read(tmp_path / "none.png")
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n rubbish")
    with pytest.raises(DataError, match=r"bad.png.*cannot be read"):
        read(tmp_path / "bad.png")


def test_truncated_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(DataError, match=r"cut.jpg"):
        read_image(path)


@given(ids=hnp.arrays(np.int32, (3, 4), elements=st.integers(0, (1 << 24) - 1)))
def test_panoptic_ids(tmp_path_factory: pytest.TempPathFactory, ids: np.ndarray) -> None:
    path = tmp_path_factory.getbasetemp() / "ids.png"
    Image.fromarray(np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1).astype(np.uint8)).save(path)
    np.testing.assert_array_equal(read_panoptic(path), ids)


def test_grey_panoptic_images_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(DataError, match="mode L"):
        read_panoptic(tmp_path / "grey.png")


@pytest.mark.tao(17)
def test_listing(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no image"):
        list_images(tmp_path)
    for name in ("b.JPG", "a.png", "notes.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in list_images(tmp_path)] == ["a.png", "b.JPG"]
    (tmp_path / "above").mkdir()
    (tmp_path / "above" / "images").mkdir()
    (tmp_path / "above" / "images" / "c.png").touch()
    assert [path.name for path in list_images(tmp_path / "above")] == ["c.png"]
    with pytest.raises(DataError, match="does not exist"):
        list_images(tmp_path / "none")


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "0.png")
    for read in (read_image, read_header):
        with pytest.raises(DataError, match="no file but a folder, a pipe or a device"):
            read(tmp_path / "0.png")
