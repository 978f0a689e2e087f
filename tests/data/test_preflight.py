"""Data sets with one defect each: what is said about it, and that everything is said at once."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from oneformer_jax.data import preflight
from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.dataset import Dataset
from oneformer_jax.data.pipeline import PipelineSettings, train_batches
from oneformer_jax.data.preflight import Findings, Passes, check_files, sampled, version_of
from oneformer_jax.data.problems import Problems
from oneformer_jax.data.sources import Source, open_sources
from oneformer_jax.errors import DataError

Defect = Callable[[Path], None]


@pytest.fixture
def folder(drawn: Path, tmp_path: Path) -> Path:
    """A copy of four pictures to break."""
    return Path(shutil.copytree(drawn / "val", tmp_path / "val"))


def opened(folder: Path) -> Dataset:
    return open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")])


def findings_of(folder: Path) -> Findings:
    return check_files(opened(folder), strict=True)


def message_of(folder: Path) -> str:
    """What a person reads."""
    problems = Problems()
    with problems.collected():
        problems.errors += findings_of(folder).errors
    with pytest.raises(DataError) as caught:
        problems.raise_all()
    return str(caught.value)


def in_json(*path: Any, value: Any = ..., remove: bool = False) -> Defect:
    """Sets, or removes, what lies at `path` of the annotations."""

    def change(folder: Path) -> None:
        file = folder / "annotations.json"
        content = part = json.loads(file.read_text())
        for key in path[:-1]:
            part = part[key]
        if remove:
            del part[path[-1]]
        else:
            part[path[-1]] = value
        file.write_text(json.dumps(content))

    return change


def in_bytes(change: Callable[[bytes], bytes], name: str = "annotations.json") -> Defect:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def as_picture(name: str, pixels: Any, kind: str = "png", **options: Any) -> Defect:
    return lambda folder: Image.fromarray(np.asarray(pixels, np.uint8)).save(folder / name, format=kind, **options)


def without(name: str) -> Defect:
    return lambda folder: shutil.rmtree(folder / name) if (folder / name).is_dir() else (folder / name).unlink()


def cut_jpeg(folder: Path) -> None:
    path = folder / "images" / "000001.png"
    Image.open(path).save(path, format="jpeg")
    path.write_bytes(path.read_bytes()[:900])


def turned(folder: Path) -> None:
    """The annotations give the size as it is stored, the camera says that it was held upright."""
    exif = Image.Exif()
    exif[0x0112] = 6
    as_picture("images/000001.png", np.zeros((48, 64, 3)), exif=exif)(folder)
    as_picture("panoptic/000001.png", np.zeros((48, 64, 3)))(folder)
    in_json("images", 1, "height", value=48)(folder)


def stray_pixel(folder: Path) -> None:
    path = folder / "panoptic" / "000001.png"
    pixels = np.array(Image.open(path))
    pixels[5, 5] = (1, 2, 3)
    Image.fromarray(pixels).save(path)


IMAGE, PNG = r"images/000001\.png: image 1: ", r"panoptic/000001\.png: image 1: "
JSON = r"annotations\.json: "
INFO = ("annotations", 1, "segments_info", 0)

DEFECTS: dict[str, tuple[Defect, str]] = {
    "truncated JPEG": (cut_jpeg, IMAGE + "the image cannot be read: .*truncated"),
    "no image": (in_bytes(lambda _: b"not an image", "images/000001.png"), IMAGE + "the image cannot be read"),
    "empty image": (in_bytes(lambda _: b"", "images/000001.png"), IMAGE + "the image cannot be read"),
    "cut PNG": (in_bytes(lambda data: data[:200], "panoptic/000001.png"), PNG + "the image cannot be read"),
    "image of another size": (
        as_picture("images/000001.png", np.zeros((32, 64, 3))),
        IMAGE + r"the size is 32x64 \(height x width\), the annotations say 64x64",
    ),
    "PNG of another size": (as_picture("panoptic/000001.png", np.zeros((64, 32, 3))), PNG + "the size is 64x32"),
    "EXIF rotation": (turned, IMAGE + "the size is 64x48 .* say 48x64\n  -> images are turned upright by their EXIF"),
    "grey PNG": (as_picture("panoptic/000001.png", np.zeros((64, 64))), PNG + ".* of mode L"),
    "PNG id without segment": (stray_pixel, PNG + f"the panoptic PNG holds segment id {1 + 2 * 256 + 3 * 65536}"),
    "missing image": (without("images/000001.png"), "the image 000001.png, but there is no such file"),
    "missing PNG": (without("panoptic/000001.png"), "the panoptic PNG 000001.png, but there is no such file"),
    "missing folder": (without("images"), "images: the image folder does not exist"),
    "missing JSON": (without("annotations.json"), JSON + "the file does not exist"),
    "JSON cut in half": (in_bytes(lambda data: data[: len(data) // 2]), JSON + "not valid JSON: .* line 1 column"),
    "empty JSON": (in_bytes(lambda _: b""), JSON + "not valid JSON"),
    "JSON list": (in_bytes(lambda data: b"[" + data + b"]"), JSON + "no list 'images'"),
    "JSON in another encoding": (in_bytes(lambda data: b'"\xe9"' + data), JSON + "not valid JSON: .*utf-8"),
    "deep JSON": (in_bytes(lambda _: b"[" * 100_000), JSON + "not usable JSON: nested too deeply"),
    "NaN in bbox": (in_json(*INFO, "bbox", value=[0, float("nan"), 1, 1]), JSON + "not valid JSON: NaN is no JSON"),
    "endless number": (
        in_bytes(lambda data: data.replace(b'"height": 64', b'"height": ' + b"9" * 5000, 1)),
        JSON + "not valid JSON: Exceeds the limit",
    ),
    "empty images": (in_json("images", value=[]), JSON + "the annotation of image 0 has no entry in 'images'"),
    "empty annotations": (in_json("annotations", value=[]), JSON + "the data set is empty"),
    "empty categories": (in_json("categories", value=[]), JSON + "the list of categories is empty"),
    "no categories": (in_json("categories", remove=True), JSON + "no list 'categories'"),
    "image twice": (in_json("images", 1, "id", value=0), JSON + "image id 0 appears twice"),
    "image annotated twice": (in_json("annotations", 1, "image_id", value=0), "annotated image id 0 appears twice"),
    "category twice": (in_json("categories", 1, "id", value=1), JSON + "category id 1 appears twice"),
    "unknown image": (
        in_json("annotations", 1, "image_id", value=77),
        JSON + "the annotation of image 77 has no entry",
    ),
    "unknown category": (in_json(*INFO, "category_id", value=99), JSON + "image 1: category_id 99 of segment"),
    "category id as text": (in_json("categories", 1, "id", value="2"), JSON + "category 1: id must be an integer"),
    "segment's category as text": (
        in_json(*INFO, "category_id", value="6"),
        JSON + "image 1: category_id 6 of segment",
    ),
    "segment id as text": (in_json(*INFO, "id", value="6001"), JSON + "image 1: segment ids must be integers"),
    "segment id beyond 24 bits": (in_json(*INFO, "id", value=1 << 24), JSON + "image 1: segment ids must be integers"),
    "image id as list": (in_json("images", 1, "id", value=[1]), JSON + "the id of an image must be"),
    "negative size": (in_json("images", 1, "height", value=-64), "image 1: height -64 .* positive integers"),
    "size as text": (in_json("images", 1, "width", value="64"), "image 1: height 64 and width '64'"),
    "huge size": (in_json("images", 1, "width", value=10**30), "image 1: height 64 and width 10{30}"),
    "file name as number": (in_json("images", 1, "file_name", value=7), JSON + "file_name must be a text"),
    "no isthing": (in_json("categories", 2, "isthing", remove=True), "category 2: the key 'isthing' is missing"),
    "no iscrowd": (in_json(*INFO, "iscrowd", remove=True), "image 1: the key 'iscrowd' is missing"),
    "segments as text": (in_json("annotations", 1, "segments_info", value="none"), "segments_info must be a list"),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_each_defect_is_named(folder: Path, name: str) -> None:
    defect, message = DEFECTS[name]
    defect(folder)
    assert re.search(message, message_of(folder))


def test_a_sound_data_set_passes_and_its_pixels_are_counted(folder: Path) -> None:
    findings = findings_of(folder)
    assert (findings.errors, findings.warnings, findings.images_read) == ([], [], 4)
    area = np.zeros(8, np.int64)
    for annotation in json.loads((folder / "annotations.json").read_text())["annotations"]:
        for info in annotation["segments_info"]:
            area[info["category_id"] - 1] += info["area"]
    np.testing.assert_array_equal(findings.pixels, area)
    assert area.sum() == 4 * 64 * 64


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_other_unicode_encodings_are_read(folder: Path, encoding: str) -> None:
    path = folder / "annotations.json"
    path.write_text(path.read_text(), encoding=encoding)
    assert findings_of(folder).errors == []


def test_texts_as_image_ids_are_read(folder: Path) -> None:
    for where in (("images", 1, "id"), ("annotations", 1, "image_id")):
        in_json(*where, value="one")(folder)
    stray_pixel(folder)
    assert "000001.png: image one: " in message_of(folder)


def test_crowds_and_void_are_counted_apart(folder: Path) -> None:
    in_json(*INFO, "iscrowd", value=1)(folder)
    crowd = json.loads((folder / "annotations.json").read_text())["annotations"][1]["segments_info"][0]
    assert findings_of(folder).pixels[-1] == crowd["area"]


def test_a_segment_without_pixels_is_a_warning(folder: Path) -> None:
    content = json.loads((folder / "annotations.json").read_text())
    info = content["annotations"][1]["segments_info"]
    in_json("annotations", 1, "segments_info", value=[*info, info[0] | {"id": 999, "category_id": 2}])(folder)
    findings = findings_of(folder)
    assert findings.errors == []
    assert re.search(PNG + r"no pixel shows segment 999 \(square\)", str(findings.warnings[0]))


def test_an_image_that_its_camera_turned_is_a_warning(folder: Path) -> None:
    turned(folder)
    in_json("images", 1, "height", value=64)(folder)
    in_json("images", 1, "width", value=48)(folder)
    as_picture("panoptic/000001.png", np.zeros((64, 48, 3)))(folder)
    findings = findings_of(folder)
    assert findings.errors == []
    assert re.search(IMAGE + "turned upright by its EXIF orientation 6", str(findings.warnings[0]))


def test_all_problems_are_told_at_once(folder: Path) -> None:
    grey = Image.fromarray(np.zeros((64, 64), np.uint8))
    for number in range(4):
        grey.save(folder / "panoptic" / f"{number:06d}.png")
    cut_jpeg(folder)
    (folder / "images" / "000002.png").write_bytes(b"")
    text = message_of(folder)
    assert text.startswith("5 problems\n")
    for number in range(4):
        assert f"panoptic/{number:06d}.png: image {number}: " in text
    assert "images/000002.png: image 2: the image cannot be read" in text
    assert text.count("segment id = R + 256 G") == 1  # the same hint


def test_of_many_problems_twenty_are_shown() -> None:
    problems = Problems()
    for number in range(33):
        with problems.collected():
            raise DataError("wrong", where=f"file {number}", hint="mend it")
    with pytest.raises(DataError) as caught:
        problems.raise_all()
    lines = str(caught.value).splitlines()
    assert lines[0] == "33 problems"
    assert lines[1:21] == [f"  file {number}: wrong" for number in range(20)]
    assert lines[21:] == ["  and 13 more", "  -> mend it"]
    outer = Problems()
    with outer.collected():
        raise caught.value
    assert len(outer.errors) == 33


def test_pixels_of_a_fixed_sample_are_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert sampled(400) == list(range(400))
    assert len(set(sampled(10_000))) == 500
    assert sampled(10_000) == sorted(sampled(10_000))
    monkeypatch.setattr(preflight, "SAMPLED", 2)
    chosen = sampled(4)
    other = next(number for number in range(4) if number not in chosen)
    path = folder / "images" / f"{other:06d}.png"
    path.write_bytes(path.read_bytes()[:500])  # the header is whole
    advanced: list[int] = []
    findings = check_files(opened(folder), strict=False, advance=lambda: advanced.append(1))
    assert (findings.errors, findings.images_read, len(advanced)) == ([], 2, 4)
    assert f"{other:06d}.png" in message_of(folder)


def test_a_version_ends_with_any_change(folder: Path) -> None:
    first = version_of(opened(folder))
    assert version_of(opened(folder)) == first
    versions = {first}
    for change in (
        in_bytes(lambda data: data + b" ", "panoptic/000003.png"),
        in_bytes(lambda data: data + b" ", "images/000003.png"),
        in_json(*INFO, "iscrowd", value=1),
        in_json("categories", 0, "isthing", value=0),
    ):
        change(folder)
        versions.add(version_of(opened(folder)))
    assert len(versions) == 5


def test_passes_are_remembered(tmp_path: Path) -> None:
    passes = Passes(tmp_path / "cache")
    assert not passes.holds("a", strict=False)
    passes.add("a", strict=False, where="x.json")
    assert passes.holds("a", strict=False)
    assert not passes.holds("a", strict=True)
    passes.add("a", strict=True, where="x.json")
    passes.add("a", strict=False, where="x.json")
    assert passes.holds("a", strict=True)
    (tmp_path / "cache" / "a.json").write_text("{")
    assert not passes.holds("a", strict=False)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == ["a.json"]


def test_a_failed_image_is_named_wherever_it_is_met(folder: Path) -> None:
    cut_jpeg(folder)
    dataset = opened(folder)
    settings = PipelineSettings(4, 10, 2, 8, {"semantic": 1.0}, AugmentationSettings(crop=(64, 64)), num_workers=0)
    with pytest.raises(DataError, match=IMAGE + "the image cannot be read"):
        next(train_batches(dataset, settings, start_step=0))


def test_real_files_pass(shared: Path) -> None:
    findings = findings_of(shared / "data" / "camvid" / "val")
    assert (findings.errors, findings.warnings) == ([], [])
