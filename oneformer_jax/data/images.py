"""Image files and panoptic PNGs."""

from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8
from PIL import Image, ImageOps

from oneformer_jax.errors import DataError

# fmt: off
SUFFIXES = frozenset({
    ".bmp", ".dib", ".eps", ".gif", ".icns", ".ico", ".im", ".jpeg", ".jpg", ".jpe", ".msp", ".pcx", ".png", ".ppm",
    ".pgm", ".pbm", ".pnm", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
})
# fmt: on


def _open(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return image
    except FileNotFoundError:
        raise DataError("the image does not exist", where=str(path)) from None
    # Pillow's decoders raise OSError, SyntaxError or ValueError on damaged files, depending on the format.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"the image cannot be read: {error}", where=str(path)) from error
    return image


def read_image(path: Path) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, upright (the EXIF orientation is applied). Raises DataError: missing or unreadable."""
    return np.asarray(ImageOps.exif_transpose(_open(path)).convert("RGB"))


def read_panoptic(path: Path) -> Int32[np.ndarray, "h w"]:
    """Segment ids R + 256 G + 65536 B of a panoptic PNG. Raises DataError: missing, unreadable or not in colour."""
    image = _open(path)
    if image.mode not in ("RGB", "RGBA", "P"):
        raise DataError(
            f"a panoptic PNG stores ids as RGB colours, this image is of mode {image.mode}",
            where=str(path),
            hint="segment id = R + 256 G + 65536 B",
        )
    # Read as RGBX, a pixel is one little-endian word whose low three bytes are the id.
    words = np.asarray(image.convert("RGB").convert("RGBX")).view("<u4")[..., 0]
    return (words & 0xFFFFFF).astype(np.int32)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header, upright. Raises DataError: missing or unreadable."""
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)
    except FileNotFoundError:
        raise DataError("the image does not exist", where=str(path)) from None
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"the image cannot be read: {error}", where=str(path)) from error
    return (width, height) if turned else (height, width)


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder (not of its subfolders), sorted by name, suffixes in any case.

    Raises DataError: the folder does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder))
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not paths:
        raise DataError("the folder holds no image", where=str(folder), hint="subfolders are not searched")
    return paths
