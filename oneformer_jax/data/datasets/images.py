"""Image files and panoptic PNGs, on the disk or in memory."""

import io
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps, UnidentifiedImageError

from oneformer_jax.errors import DataError

# fmt: off
SUFFIXES = frozenset({
    ".bmp", ".dib", ".eps", ".gif", ".icns", ".ico", ".im", ".jpeg", ".jpg", ".jpe", ".msp", ".pcx", ".png", ".ppm",
    ".pgm", ".pbm", ".pnm", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
})
# fmt: on


class EncodedImage(NamedTuple):
    """An image file in memory; `where` names it in messages."""

    content: bytes
    where: str

    def __str__(self) -> str:
        return self.where


ImageFile = Path | EncodedImage


def _open(file: ImageFile) -> Image.Image:
    try:
        with Image.open(io.BytesIO(file.content) if isinstance(file, EncodedImage) else file) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError("the image does not exist", where=str(file)) from None
    # Pillow's decoders raise OSError, SyntaxError or ValueError on damaged files, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # In memory a file is known to Pillow by an address, which would differ each time.
        what = "it is not an image" if isinstance(error, UnidentifiedImageError) else error
        raise DataError(f"the image cannot be read: {what}", where=str(file)) from error


def read_image(file: ImageFile) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, upright (the EXIF orientation is applied). Raises DataError: missing or unreadable."""
    image = _open(file)
    ImageOps.exif_transpose(image, in_place=True)
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def read_panoptic(file: ImageFile) -> Int32[np.ndarray, "h w"]:
    """Segment ids R + 256 G + 65536 B of a panoptic PNG. Raises DataError: missing, unreadable or not in colour."""
    image = _open(file)
    check_panoptic_mode(image.mode, file)
    # Read as RGBX, a pixel is one little-endian word whose low three bytes are the id.
    words = (image if image.mode == "RGB" else image.convert("RGB")).tobytes("raw", "RGBX")
    return np.frombuffer(words, "<i4").reshape(image.height, image.width) & np.int32(0xFFFFFF)


def panoptic_colors(ids: Int32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Segment ids as the RGB colours of a panoptic PNG: the inverse of `read_panoptic`."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


class Header(NamedTuple):
    """What an image file says before its pixels; `size` is (height, width) as they are stored."""

    size: tuple[int, int]
    mode: str
    orientation: int

    @property
    def upright_size(self) -> tuple[int, int]:
        """(height, width) of what `read_image` returns."""
        return self.size[::-1] if self.orientation in (5, 6, 7, 8) else self.size


def read_header(path: Path) -> Header:
    """Size, mode and EXIF orientation (1: upright). Raises DataError: missing or unreadable.

    Of PNGs only what stands before the pixels is read, where writers put the orientation: Pillow looks behind them too,
    for which it decodes them.
    """
    try:
        with Image.open(path) as image:
            has_exif = image.format != "PNG" or "exif" in image.info
            orientation = image.getexif().get(0x0112, 1) if has_exif else 1
            return Header((image.height, image.width), image.mode, orientation)
    except FileNotFoundError:
        raise DataError("the image does not exist", where=str(path)) from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}", where=str(path)) from error


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header, upright. Raises DataError: missing or unreadable."""
    return read_header(path).upright_size


def check_panoptic_mode(mode: str, file: ImageFile) -> None:
    """Raises DataError where a panoptic PNG is not in colour."""
    if mode not in ("RGB", "RGBA", "P"):
        raise DataError(
            f"a panoptic PNG stores ids as RGB colours, this image is of mode {mode}",
            where=str(file),
            hint="segment id = R + 256 G + 65536 B",
        )


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder (not of its subfolders), sorted by name, suffixes in any case.

    The folder may be one level too high if it holds nothing but another folder. Raises DataError: it does not exist or
    holds no image.
    """
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder))
    entries = sorted(folder.iterdir())
    if len(entries) == 1 and entries[0].is_dir():
        return list_images(entries[0])
    paths = [path for path in entries if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not paths:
        raise DataError("the folder contains no images", where=str(folder), hint="subfolders are not searched")
    return paths
