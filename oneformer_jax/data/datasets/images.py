"""Pictures and panoptic PNGs, in files, in memory or as arrays: the one place that says which pixels they stand for.

A picture becomes RGB of 8 bits, upright:

- 16 bits a channel: the upper 8 are kept, as Pillow and OpenCV keep them of colours. What counts is the depth that the
  container declares (12 bits in a TIFF of 12 bits, the largest value of a PGM), not the values that occur;
- grey, palette, CMYK, YCbCr, HSV: as Pillow converts them; colour profiles are not applied;
- transparency is dropped, and so are all frames or pages but the first;
- orientation (EXIF, or else XMP) is applied; a damaged one counts as none, as in browsers and OpenCV;
- floating point, signed or 32-bit integers and Lab are refused: nothing says which value is white.
"""

import io
import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped, UInt8, UInt16
from PIL import ExifTags, Image, UnidentifiedImageError

from oneformer_jax.data.storage.folders import LeftOut, entries, files_below, innermost
from oneformer_jax.errors import DataError

logger = logging.getLogger(__name__)

# Pillow recognises a file by its content, and each of these is a decoder that foreign bytes reach. PostScript, which it
# hands to Ghostscript, is none of them. TGA, which has no mark of its own, comes last.
# fmt: off
FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "DIB", "GIF", "PPM", "ICO", "ICNS", "IM", "MSP", "PCX", "SGI", "XBM",
           "TGA")
SUFFIXES = frozenset({
    ".bmp", ".dib", ".gif", ".icns", ".ico", ".im", ".jpeg", ".jpg", ".jpe", ".msp", ".pcx", ".png", ".ppm", ".pgm",
    ".pbm", ".pnm", ".sgi", ".tga", ".tif", ".tiff", ".webp", ".xbm",
})
# What lies under the suffix of a picture by mistake, by its first bytes.
_NO_PICTURES = {
    b"%!PS": "PostScript", b"\xc5\xd0\xd3\xc6": "PostScript", b"%PDF": "PDF", b"<svg": "SVG", b"<?xml": "XML",
    b"\0\5\x16\7": "what macOS keeps beside files (AppleDouble)", b"version https://git-lfs": "a Git LFS pointer",
    b"<!DOCTYPE": "a web page", b"<html": "a web page", b"\0\0\0\x0cjP": "JPEG 2000", b"\xff\x0a": "JPEG XL",
}
# fmt: on
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_BITS_PER_SAMPLE, _COMPRESSION, _PHOTOMETRIC, _PLANES, _SAMPLE_FORMAT = 258, 259, 262, 284, 339  # tags of TIFF
_SIGNED, _WHITE_IS_ZERO = 2, 0
_dark_was_told = threading.Event()


class EncodedImage(NamedTuple):
    """An image file in memory; `where` names it in messages."""

    content: bytes
    where: str

    def __str__(self) -> str:
        return self.where


ImageFile = Path | EncodedImage


def read_image(file: ImageFile) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, upright. Raises DataError: missing, unreadable, or pixels that have no meaning as a picture."""
    with _opened(file) as image:
        return _upright_rgb(image, str(file))


def pictures_below(folder: Path, left_out: LeftOut | None = None) -> list[PurePath]:
    """The paths of pictures by their suffixes (see `files_below`)."""
    return files_below(folder, SUFFIXES, left_out)


def pillow_picture(image: Image.Image, where: str) -> UInt8[np.ndarray, "h w 3"]:
    """RGB pixels, upright, of what Pillow has opened or made; `where` names it in messages. Raises DataError."""
    with _told(where):
        return _upright_rgb(image, where)


def read_panoptic(file: ImageFile) -> Int32[np.ndarray, "h w"]:
    """Segment ids R + 256 G + 65536 B of a panoptic PNG. Raises DataError: missing, unreadable or not in colour."""
    with _opened(file) as image:
        _check_panoptic(image)
        # Read as RGBX, a pixel is one little-endian word whose low three bytes are the id.
        words = _as_rgb(image, str(file)).tobytes("raw", "RGBX")
        return np.frombuffer(words, "<i4").reshape(image.height, image.width) & np.int32(0xFFFFFF)


def read_label_pixels(
    path: Path, *, palette_colors: bool = False
) -> tuple[Shaped[np.ndarray, "h w *c"], UInt8[np.ndarray, "n 3"]]:
    """What a mask stores for each pixel, and the colours of its palette (none without one).

    (height, width) of grey values or positions in the palette, or (height, width, 3) of colours, which a palette gives
    only with `palette_colors`. Raises DataError: missing, unreadable, lossy, or pixels that number nothing.
    """
    with _opened(path) as image:
        _check_lossless(image, "a mask stores classes in its pixels")
        if image.mode == "P" and not palette_colors:
            palette = np.array(image.getpalette("RGB") or [], np.uint8).reshape(-1, 3)
            return np.asarray(image), palette
        if image.mode in ("RGBA", "P", "RGBX"):
            image = image.convert("RGB")
        elif image.mode == "LA":
            image = image.getchannel(0)
        if image.mode not in ("1", "L", "I", "I;16", "I;16B", "RGB"):
            what = f"the pixels of this mask are of mode {image.mode}, expected whole numbers or colours"
            raise DataError(what, hint="write it as PNG, grey of 8 or 16 bits, palette or RGB")
        pixels = np.asarray(image)
        if image.mode == "I" and pixels.size and not 0 <= pixels.min() <= pixels.max() < 1 << 24:
            raise DataError(f"a mask holds {pixels.min()} to {pixels.max()}, expected 0 to 16777215")
        return pixels, np.zeros((0, 3), np.uint8)


def panoptic_colors(ids: Int32[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Segment ids as the RGB colours of a panoptic PNG: the inverse of `read_panoptic`."""
    return np.stack([ids & 255, ids >> 8 & 255, ids >> 16 & 255], axis=-1).astype(np.uint8)


class Header(NamedTuple):
    """What an image file says before its pixels: the (height, width) that reading it gives, and the EXIF orientation
    that reading it undoes (1: none)."""

    size: tuple[int, int]
    orientation: int = 1


def read_header(path: Path, *, panoptic: bool = False) -> Header:
    """Of what `read_image` returns or, if `panoptic`, `read_panoptic`. Raises DataError as those do, for all that can
    be known without the pixels."""
    with _opened(path) as image:
        if panoptic:
            _check_panoptic(image)
            return Header((image.height, image.width))
        _check_meaning(image)
        orientation = _orientation(image)
        # Of a TIFF with that tag, Pillow gives the size of what it will return.
        turned = orientation >= 5 and ExifTags.Base.Orientation not in getattr(image, "tag_v2", ())
        return Header((image.width, image.height) if turned else (image.height, image.width), orientation)


def image_size(path: Path) -> tuple[int, int]:
    """(height, width) from the header, upright. Raises DataError: missing or unreadable."""
    return read_header(path).size


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder (not of its subfolders), sorted by name, suffixes in any case, hidden ones left out.

    The folder may be one level too high if it holds nothing but another folder. Subfolders, and what is named like an
    image and is no file, are left out with a warning. Raises DataError: it does not exist or holds no image.
    """
    if not folder.is_dir():
        raise DataError("the folder does not exist", where=str(folder))
    folder = innermost(folder)
    shown = entries(folder)
    named = [path for path in shown if path.suffix.lower() in SUFFIXES and not path.is_dir()]
    paths = [path for path in named if path.is_file()]
    if not paths:
        raise DataError("the folder contains no images", where=str(folder), hint="subfolders are not searched")
    left_out = {
        "subfolders, which are not searched": [path for path in shown if path.is_dir()],
        "no files, though named like images": [path for path in named if not path.is_file()],
    }
    for kind, of_kind in left_out.items():
        if of_kind:
            names = ", ".join(path.name for path in of_kind[:3]) + (", ..." if len(of_kind) > 3 else "")
            logger.warning("%s: %d left out that are %s: %s", folder, len(of_kind), kind, names)
    return paths


@contextmanager
def of_any_size() -> Iterator[None]:
    """Inside, images are read however many pixels they have, in all threads."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def _opened(file: ImageFile) -> Iterator[Image.Image]:
    """Yields what Pillow recognises; its pixels are not read yet."""
    if isinstance(file, Path) and not file.is_file() and file.exists():
        raise DataError("it is no file but a folder, a pipe or a device", where=str(file))  # who reads a pipe may wait
    with (
        _told(str(file)),
        io.BytesIO(file.content) if isinstance(file, EncodedImage) else file.open("rb") as source,
    ):
        try:
            image = Image.open(source, formats=FORMATS)
        except UnidentifiedImageError:
            source.seek(0)
            raise _no_picture(source.read(32)) from None
        yield image


def _no_picture(start: bytes) -> DataError:
    found = next((name for mark, name in _NO_PICTURES.items() if start.startswith(mark)), "")
    if start[4:8] == b"ftyp":
        found = "HEIF or AVIF, as phones write them"
    found = found or ("" if start else "an empty file")
    what = f"it is {found}, not an image" if found else "it is not an image of any kind that is read"
    return DataError(
        f"the image cannot be read: {what}", hint=f"formats: {', '.join(FORMATS)}; convert it to PNG or JPEG"
    )


@contextmanager
def _told(where: str) -> Iterator[None]:
    """Makes a DataError of whatever Pillow raises: the classes differ with the formats and the kinds of damage."""
    try:
        yield
    except DataError as error:
        raise DataError(error.what, where=where, hint=error.hint) from None
    except FileNotFoundError:
        raise DataError("the image does not exist", where=where) from None
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 10**6
        raise DataError(
            f"the image has more pixels than the {limit} megapixels that are read",
            where=where,
            hint="make it smaller, or cut it into tiles (predict --tile): a model sees it at a size like test_max_size",
        ) from error
    except Exception as error:
        raise DataError(f"the image cannot be read: {str(error) or type(error).__name__}", where=where) from error


def _check_meaning(image: Image.Image) -> None:
    if _is_signed(image):
        raise _meaningless("signed or 32-bit integers", image)
    # Of PGM, whose largest value is stated, Pillow gives 16 bits as 32.
    if image.mode in ("F", "LAB") or (image.mode == "I" and image.format != "PPM"):
        kind = {"F": "floating-point numbers", "I": "signed or 32-bit integers", "LAB": "Lab colours"}[image.mode]
        raise _meaningless(kind, image)

    tags = getattr(image, "tag_v2", {})
    if tags.get(_PLANES) == 2 and tags.get(_COMPRESSION, 1) == 1 and max(tags.get(_BITS_PER_SAMPLE, (8,))) > 8:
        raise DataError(  # whose bytes Pillow takes for pixels
            "the image has more than 8 bits a channel in planes of their own without compression, which is not read",
            hint="write it again with the channels of a pixel beside each other, or as PNG",
        )


def _meaningless(kind: str, image: Image.Image) -> DataError:
    return DataError(
        f"the pixels are {kind} (mode {image.mode}), which do not say what is black and what is white",
        hint="convert it to 8 bits (or to unsigned 16), with the range that you mean",
    )


def _is_signed(image: Image.Image) -> bool:
    """Of a TIFF, which Pillow reads as unsigned where a sample has 8 bits."""
    formats = getattr(image, "tag_v2", {}).get(_SAMPLE_FORMAT, ())
    return _SIGNED in (formats if isinstance(formats, tuple) else (formats,))


def _check_panoptic(image: Image.Image) -> None:
    """Raises DataError where ids cannot lie in the colours."""
    hint = "segment id = R + 256 G + 65536 B, in the 8 bits of each"
    if image.mode not in ("RGB", "RGBA", "P"):
        raise DataError(f"a panoptic PNG stores ids as RGB colours, this image is of mode {image.mode}", hint=hint)
    if ";16" in str(getattr(image, "tile", "")):
        raise DataError("a panoptic PNG stores ids in colours of 8 bits, this image is of 16 bits", hint=hint)
    _check_lossless(image, "a panoptic PNG stores ids in its colours", ("JPEG", "WEBP", "GIF"))


def _check_lossless(image: Image.Image, what: str, lossy: tuple[str, ...] = ("JPEG", "WEBP")) -> None:
    """Raises DataError where the file's format changes pixels."""
    packed = str(image.info.get("compression", "")).upper()
    if found := [name for name in lossy if image.format == name or name in packed]:
        raise DataError(f"{what}, which {found[0]} changes", hint="write them as PNG")


def _orientation(image: Image.Image) -> int:
    """From what stands before the pixels; a damaged one is none."""
    try:
        # Not the method of PNGs, which decodes the pixels to look behind them.
        value = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1)
        return int(value) if value in range(1, 9) else 1
    except Exception:
        return 1


def _upright_rgb(image: Image.Image, where: str) -> UInt8[np.ndarray, "h w 3"]:
    _check_meaning(image)
    orientation, stated = _orientation(image), set(image.info)
    image.load()
    if image.format == "PNG" and set(image.info) - stated and _orientation(image.copy()) != orientation:
        raise DataError(
            "the orientation stands behind the pixels, where a header that is read alone does not show it",
            hint="write the file again, turned upright",
        )
    turn = None if image.format == "TIFF" else _TURNS.get(orientation)  # a TIFF was turned when it was loaded
    rgb = _as_rgb(image, where)
    return np.asarray(rgb if turn is None else rgb.transpose(turn))


def _as_rgb(image: Image.Image, where: str) -> Image.Image:
    if image.mode == "RGB":
        return image
    if image.mode.startswith("I"):
        tags = getattr(image, "tag_v2", {})
        bits = tags.get(_BITS_PER_SAMPLE, (16,))[0]
        values = np.asarray(image).astype(np.uint16)
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow heeds it in 8 bits alone
            values = np.uint16((1 << bits) - 1) - values
        image = Image.fromarray(upper_bits(values, bits, where))
    elif "transparency" in image.info:  # of a palette; Pillow warns that it will be dropped
        image = image.copy()
        del image.info["transparency"]
    return image.convert("RGB")


def upper_bits(values: UInt16[np.ndarray, "*shape"], bits: int, where: str) -> UInt8[np.ndarray, "*shape"]:
    """The upper 8 of so many bits; says once where values use so few of these that a picture is nearly black."""
    pixels = (values >> (bits - 8)).astype(np.uint8)
    if pixels.max(initial=0) < 16 <= values.max(initial=0) and not _dark_was_told.is_set():
        _dark_was_told.set()
        logger.warning(
            "%s: no value is above %d, of %d bits: read as nearly black. Values of a camera with fewer bits must be "
            "multiplied before they are written as %d. This is said once.",
            where,
            values.max(),
            bits,
            bits,
        )
    return pixels
