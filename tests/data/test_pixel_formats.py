"""Which pixels a picture stands for, whatever it is stored as: against OpenCV's writers and files made by hand."""

import contextlib
import io
import logging
import struct
import zlib
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo
from tiers import examples

from oneformer_jax.data.datasets import images
from oneformer_jax.data.datasets.images import EncodedImage, read_header, read_image, read_panoptic
from oneformer_jax.data.given_picture import as_picture
from oneformer_jax.errors import DataError

RAMP = np.arange(0, 1 << 16, 37, dtype=np.uint16)[:1728].reshape(36, 48)
XMP = '<x:xmpmeta xmlns:x="adobe:ns:meta/"><d tiff:Orientation="{}"/></x:xmpmeta>'


def stored(array: np.ndarray, suffix: str, path: Path) -> Path:
    path = path.with_suffix(suffix)
    path.write_bytes(cv2.imencode(suffix, array)[1].tobytes())
    return path


def tiff(values: bytes, size: tuple[int, int], **tags: int) -> bytes:
    """A little-endian TIFF of one grey strip. `tags` are those of TIFF 6.0, by name."""
    numbers = {"bits": 258, "photometric": 262, "sample_format": 339, "orientation": 274}
    entries = {256: size[1], 257: size[0], 259: 1, 277: 1, 278: size[0], 279: len(values), 273: 0}
    entries |= {numbers[name]: value for name, value in tags.items()}
    start = 8 + 2 + 12 * len(entries) + 4
    entries[273] = start
    table = b"".join(struct.pack("<HHII", tag, 4, 1, entries[tag]) for tag in sorted(entries))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + values


@pytest.mark.parametrize("compression", [1, 8])
def test_colours_of_16_bits_in_planes_are_read_right_or_refused(compression: int) -> None:
    """Pillow takes their bytes for pixels where nothing compresses them."""
    planes = [np.full((2, 3), value << 8, "<u2").tobytes() for value in (200, 100, 50)]
    content = planar_tiff(planes, (2, 3), compression)
    if compression == 1:
        with pytest.raises(DataError, match="more than 8 bits a channel in planes of their own"):
            read_image(EncodedImage(content, "t"))
    else:
        np.testing.assert_array_equal(
            read_image(EncodedImage(content, "t")), np.full((2, 3, 3), (200, 100, 50), np.uint8)
        )


def planar_tiff(planes: list[bytes], size: tuple[int, int], compression: int) -> bytes:
    """A little-endian TIFF of three channels of 16 bits, a strip each; 8: zlib."""
    strips = [zlib.compress(plane) if compression == 8 else plane for plane in planes]
    short, long = 3, 4
    tags = {
        256: (short, [size[1]]),
        257: (short, [size[0]]),
        258: (short, [16] * 3),
        259: (short, [compression]),
        262: (short, [2]),
        273: (long, [0] * 3),
        277: (short, [3]),
        278: (short, [size[0]]),
        279: (long, [len(strip) for strip in strips]),
        284: (short, [2]),
    }

    def packed(kind: int, values: list[int]) -> bytes:
        return struct.pack(f"<{len(values)}{'H' if kind == short else 'I'}", *values)

    start = 8 + 2 + 12 * len(tags) + 4
    place = start + sum(len(packed(*entry)) for entry in tags.values() if len(packed(*entry)) > 4)
    places = [place + sum(map(len, strips[:index])) for index in range(3)]
    tags[273] = (long, places)
    entries, beside = b"", b""
    for tag, (kind, values) in tags.items():
        raw = packed(kind, values)
        where = raw.ljust(4, b"\0") if len(raw) <= 4 else struct.pack("<I", start + len(beside))
        beside += raw if len(raw) > 4 else b""
        entries += struct.pack("<HHI", tag, kind, len(values)) + where
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + beside + b"".join(strips)


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bits_of_grey_become_eight(tmp_path: Path, suffix: str) -> None:
    image = read_image(stored(RAMP, suffix, tmp_path / "ramp"))
    np.testing.assert_array_equal(image, np.repeat((RAMP // 256)[..., None], 3, axis=-1), strict=False)
    levels = np.repeat(np.arange(256, dtype=np.uint16)[None] * 257, 4, axis=0)  # of 8 bits, stretched over 16
    np.testing.assert_array_equal(read_image(stored(levels, suffix, tmp_path / "l"))[0, :, 0], np.arange(256))


def test_sixteen_bits_of_colour_become_eight_as_those_of_grey(tmp_path: Path) -> None:
    colours = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], axis=-1)
    image = read_image(stored(colours[..., ::-1], ".png", tmp_path / "colour"))
    np.testing.assert_array_equal(image, colours // 256)


def test_the_declared_depth_counts() -> None:
    """12 bits, two values in three bytes; and a PGM whose white is 1023."""
    values = np.array([0, 15, 16, 2048, 4080, 4095])
    bits = "".join(f"{value:012b}" for value in values)
    packed = int(bits, 2).to_bytes(9, "big")
    image = read_image(EncodedImage(tiff(packed, (1, 6), bits=12, photometric=1), "t"))
    assert image[0, :, 0].tolist() == (values // 16).tolist()
    grey = np.array([0, 511, 1023], ">u2")
    image = read_image(EncodedImage(b"P5 3 1 1023\n" + grey.tobytes(), "p"))
    np.testing.assert_allclose(image[0, :, 0], grey / 1023 * 255, atol=1)


@pytest.mark.parametrize("bits", [8, 16])
def test_where_zero_is_white_the_picture_is_no_negative(bits: int) -> None:
    values = np.array([0, 1 << (bits - 1), (1 << bits) - 1], f"<u{bits // 8}")
    image = read_image(EncodedImage(tiff(values.tobytes(), (1, 3), bits=bits, photometric=0), "t"))
    assert image[0, :, 0].tolist() == [255, 127, 0]


def test_a_picture_that_comes_out_black_is_told_of(caplog: pytest.LogCaptureFixture) -> None:
    """12 bits of a camera, in a file that says 16."""
    images._dark_was_told.clear()
    dark = cv2.imencode(".png", np.array([[0, 4095]], np.uint16))[1].tobytes()
    with caplog.at_level(logging.WARNING):
        assert read_image(EncodedImage(dark, "thermal.png")).max() == 15
        read_image(EncodedImage(dark, "again.png"))
    (record,) = caplog.records
    assert "thermal.png: no value is above 4095, of 16 bits" in record.getMessage()


REFUSED: dict[str, tuple[Any, str]] = {
    "float": (np.linspace(0, 1, 12, dtype=np.float32).reshape(3, 4), "floating-point numbers"),
    "int32": (np.arange(12, dtype=np.int32).reshape(3, 4), "signed or 32-bit integers"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_pixels_without_a_white_are_refused_already_by_the_header(tmp_path: Path, kind: str) -> None:
    array, what = REFUSED[kind]
    Image.fromarray(array).save(tmp_path / "f.tif")
    for read in (read_image, read_header):
        with pytest.raises(DataError, match=rf"f\.tif: the pixels are {what}(.|\n)*convert it to 8 bits"):
            read(tmp_path / "f.tif")


def test_signed_numbers_and_lab_are_refused() -> None:
    signed = tiff(np.array([-5, 5], "<i2").tobytes(), (1, 2), bits=16, photometric=1, sample_format=2)
    with pytest.raises(DataError, match="signed or 32-bit integers"):
        read_image(EncodedImage(signed, "s"))
    signed = tiff(np.array([-5, 5], "i1").tobytes(), (1, 2), bits=8, photometric=1, sample_format=2)
    with pytest.raises(DataError, match="signed or 32-bit integers"):  # Pillow would read 251 and 5
        read_image(EncodedImage(signed, "s"))
    lab = io.BytesIO()
    Image.new("LAB", (2, 2)).save(lab, "TIFF")
    with pytest.raises(DataError, match="Lab"):
        read_image(EncodedImage(lab.getvalue(), "lab"))


def test_hidden_colours_of_a_transparent_palette_stay(tmp_path: Path) -> None:
    image = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.save(tmp_path / "p.png", transparency=b"\x00\x80")
    assert read_image(tmp_path / "p.png").tolist() == [[[10, 20, 30], [40, 50, 60]]]
    rgba = np.array([[[1, 2, 3, 0], [4, 5, 6, 128]]], np.uint8)
    Image.fromarray(rgba).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png").tolist() == rgba[..., :3].tolist()


UPRIGHT = np.arange(24, dtype=np.uint8).reshape(4, 6) * 10
# What a camera stores that is held as each orientation says: EXIF 2.32, 4.6.4 A.
HELD = {
    1: UPRIGHT,
    2: UPRIGHT[:, ::-1],
    3: UPRIGHT[::-1, ::-1],
    4: UPRIGHT[::-1],
    5: UPRIGHT.T,
    6: UPRIGHT.T[::-1],
    7: UPRIGHT.T[::-1, ::-1],
    8: UPRIGHT.T[:, ::-1],
}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("said_in", ["exif", "xmp"])
def test_orientations_of_exif_and_xmp_are_undone_and_known_from_the_header(
    tmp_path: Path, kind: str, said_in: str
) -> None:
    for orientation, pixels in HELD.items():
        exif, xmp = Image.Exif(), XMP.format(orientation)
        exif[0x0112] = orientation
        note = PngInfo()
        note.add_itxt("XML:com.adobe.xmp", xmp)
        of_xmp: dict[str, Any] = {"pnginfo": note} if kind == "PNG" else {"xmp": xmp.encode()}
        if kind == "TIFF":
            of_xmp = {"tiffinfo": {700: xmp.encode()}}
        options = of_xmp if said_in == "xmp" else {"exif": exif}
        if kind == "WEBP":
            options["lossless"] = True
        path = tmp_path / f"{orientation}.{kind}"
        Image.fromarray(np.ascontiguousarray(pixels)).convert("RGB").save(path, kind, **options)
        image = read_image(path)
        np.testing.assert_array_equal(image[..., 0], UPRIGHT)
        assert read_header(path) == ((4, 6), orientation)


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def test_an_orientation_that_the_header_does_not_show_is_refused() -> None:
    content = cv2.imencode(".png", UPRIGHT)[1].tobytes()
    late = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(6).encode())
    with pytest.raises(DataError, match="behind the pixels"):
        read_image(EncodedImage(content[:-12] + late + content[-12:], "late"))
    upright = png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\0\0\0\0" + XMP.format(1).encode())
    image = read_image(EncodedImage(content[:-12] + upright + content[-12:], "late"))
    np.testing.assert_array_equal(image[..., 0], UPRIGHT)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
@pytest.mark.parametrize("exif", [b"Exif\0\0rubbish", b"", b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_a_damaged_orientation_is_none(tmp_path: Path, exif: bytes) -> None:
    Image.fromarray(UPRIGHT).save(tmp_path / "i.jpg", exif=exif)
    assert read_header(tmp_path / "i.jpg") == ((4, 6), 1)
    assert read_image(tmp_path / "i.jpg").shape == (4, 6, 3)


@pytest.mark.parametrize(
    ("start", "what"),
    [
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "it is PostScript"),
        (b"\0\0\0\x18ftypheic", "it is HEIF or AVIF"),
        (b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        (b"", "an empty file"),
        (b"just text", "it is not an image"),
    ],
)
def test_what_is_no_picture_is_named_and_no_other_decoder_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes, what: str
) -> None:
    monkeypatch.setenv("PATH", "")
    (tmp_path / "x.jpg").write_bytes(start)
    for read in (read_image, read_header, read_panoptic):
        with pytest.raises(DataError, match=rf"x\.jpg.*{what}(.|\n)*formats: JPEG, PNG"):
            read(tmp_path / "x.jpg")
    assert not {"EPS", "WMF", "FITS", "HDF5", "PDF"} & set(images.FORMATS)
    assert ".eps" not in images.SUFFIXES


def test_a_picture_above_the_limit_is_told_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1_000_000)
    Image.new("1", (2000, 1001)).save(tmp_path / "large.png")
    for read in (read_image, read_header):
        with pytest.raises(DataError, match=r"large\.png: .* more pixels than the 2 megapixels(.|\n)*into tiles"):
            read(tmp_path / "large.png")


def test_ids_lie_in_eight_bits_that_nothing_has_changed(tmp_path: Path) -> None:
    path = stored(np.ones((2, 3, 3), np.uint16), ".png", tmp_path / "wide")
    lossy = {"JPEG": {}, "WEBP": {}, "GIF": {}, "TIFF": {"compression": "jpeg"}}
    for kind, options in lossy.items():
        Image.new("RGB", (16, 16)).save(tmp_path / f"{kind}.png", kind, **options)
    for read in (read_panoptic, lambda path: read_header(path, panoptic=True)):
        with pytest.raises(DataError, match="8 bits, this image is of 16"):
            read(path)
        for kind in lossy:
            with pytest.raises(DataError, match=f"which {'JPEG' if kind == 'TIFF' else kind} changes"):
                read(tmp_path / f"{kind}.png")


def test_arrays_images_and_paths_are_one_picture(tmp_path: Path) -> None:
    rgb = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    turned = np.ascontiguousarray(np.rot90(rgb))
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(turned).save(tmp_path / "t.png", exif=exif)
    with Image.open(tmp_path / "t.png") as opened:
        forms = [rgb, rgb.astype(np.uint16) * 257, tmp_path / "t.png", str(tmp_path / "t.png"), opened]
        forms += [
            np.dstack([rgb, rgb[..., :1]]),
            ImageOps.exif_transpose(opened),
            Image.fromarray(rgb),
            rgb[::-1][::-1],
        ]
        for form in forms:
            np.testing.assert_array_equal(as_picture(form), rgb, strict=True)
    for kind in (np.float16, np.float32, np.float64):
        np.testing.assert_array_equal(as_picture((rgb / 255).astype(kind)), rgb, strict=True)
    grey = np.repeat(rgb[..., :1], 3, axis=-1)
    for form in (rgb[..., 0], rgb[..., :1], Image.fromarray(rgb[..., 0]), rgb[..., 0].astype(">u2") * 257):
        np.testing.assert_array_equal(as_picture(form), grey, strict=True)


@pytest.mark.parametrize(
    ("array", "what"),
    [
        (
            np.full((4, 6, 3), 117.5),
            r"must lie in 0\.\.1 where it is floating point, found 117\.5 to 117\.5(.|\n)*clip",
        ),
        (np.linspace(-2, 2, 24).reshape(4, 6), r"found -2 to 2"),
        (np.array([[0.5, np.nan]]), r"found values that are no numbers"),
        (np.array([[0.5, np.inf]]), r"found 0\.5 to inf"),
        (np.zeros((4, 6, 3), complex), "complex"),
        (np.zeros((4, 6, 3), np.int64), r"int64(.|\n)*astype\(np\.uint8\)"),
        (np.zeros((4, 6, 3), bool), "bool"),
        (np.zeros((2, 4, 6, 3), np.uint8), "one picture at a time"),
        (np.zeros((3, 4, 6), np.uint8), "transpose"),
        (np.zeros((4, 6, 2), np.uint8), "shape"),
        (np.zeros((0, 6, 3), np.uint8), "must have pixels"),
        (np.zeros((4, 0), np.uint8), "must have pixels"),
        (7, "array of uint8"),
        ("none.png", r"none\.png: the image does not exist"),
        (Image.new("F", (2, 2)), "floating-point"),
    ],
)
def test_what_is_no_picture_says_what_to_give(array: Any, what: str) -> None:
    with pytest.raises(DataError, match=what):
        as_picture(array)


SEEDS = [
    cv2.imencode(suffix, RAMP[:8, :8] if suffix == ".tiff" else (RAMP[:8, :8] // 256).astype(np.uint8))[1].tobytes()
    for suffix in (".png", ".jpg", ".bmp", ".tiff", ".pgm", ".webp")
]


@pytest.mark.again
@settings(max_examples=examples(60))
@given(st.data())
def test_damaged_files_are_read_or_refused(data: st.DataObject) -> None:
    content = bytearray(data.draw(st.sampled_from(SEEDS)))
    for _ in range(data.draw(st.integers(1, 6))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    file = EncodedImage(bytes(content[: data.draw(st.integers(0, len(content)))]), "damaged")
    for read in (read_image, read_panoptic):
        with contextlib.suppress(DataError):
            assert read(file).size
