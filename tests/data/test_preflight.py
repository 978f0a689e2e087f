"""What the check of all files says of data sets with one defect each, and that everything is said at once."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from defects import DEFECTS, IMAGE, INFO, PNG, as_picture, cut_jpeg, in_bytes, in_json, stray_pixel, turned
from PIL import Image

from oneformer_jax.data.augmentation import AugmentationSettings
from oneformer_jax.data.datasets import check_files as preflight
from oneformer_jax.data.datasets.check_files import Findings, Passes, check_files, sampled, version_of
from oneformer_jax.data.datasets.dataset import Dataset, Problems
from oneformer_jax.data.datasets.sources import Source, open_sources
from oneformer_jax.data.pipeline import PipelineSettings, train_batches
from oneformer_jax.errors import DataError


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


@pytest.mark.tao(22)
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
    assert re.search(IMAGE + "rotated upright by its EXIF orientation 6", str(findings.warnings[0]))


def test_all_problems_are_told_at_once(folder: Path) -> None:
    grey = Image.fromarray(np.zeros((64, 64), np.uint8))
    for number in range(4):
        grey.save(folder / "panoptic" / f"{number:06d}.png")
    cut_jpeg(folder)
    (folder / "images" / "000002.png").write_bytes(b"")
    text = message_of(folder)
    assert text.startswith("5 problems\n")
    for number in range(3):
        assert f"panoptic/{number:06d}.png: image {number}: " in text
    assert "and 1 more like these" in text
    assert "images/000002.png: image 2: the image cannot be read" in text
    assert text.count("segment id = R + 256 G") == 1  # the same hint


def test_problems_are_told_by_their_kinds() -> None:
    """Three of a kind, how many more, and what to do, once; of one kind are those that differ in numbers and names."""
    problems = Problems()
    for number in range(33):
        with problems.collected():
            raise DataError(
                f"{number} is not '{'ab'[number % 2]}' in x/{number}.png", where=f"file {number}", hint="mend"
            )
        if number < 2:
            problems.errors.append(DataError("no name", where=f"entry {number}", hint="mend"))
    with pytest.raises(DataError) as caught:
        problems.raise_all()
    assert str(caught.value).splitlines() == [
        "35 problems",
        "  file 0: 0 is not 'a' in x/0.png",
        "  file 1: 1 is not 'b' in x/1.png",
        "  file 2: 2 is not 'a' in x/2.png",
        "  and 30 more like these",
        "  -> mend",
        "  entry 0: no name",
        "  entry 1: no name",
    ]
    outer = Problems()
    with outer.collected():
        raise caught.value
    assert len(outer.errors) == 35


def test_what_is_found_twice_is_told_once(folder: Path) -> None:
    """As where one file is that of two splits."""
    as_picture("images/000001.png", np.zeros((32, 64, 3)))(folder)
    errors = findings_of(folder).errors
    with pytest.raises(DataError) as caught:
        Problems([*errors, *findings_of(folder).errors]).raise_all()
    assert str(caught.value) == str(errors[0])


def test_of_many_kinds_twenty_are_told() -> None:
    words = ["".join(chr(97 + int(digit)) for digit in f"{number:02d}") for number in range(33)]
    with pytest.raises(DataError) as caught:
        Problems(DataError(word) for word in words).raise_all()
    assert str(caught.value).splitlines() == [
        "33 problems",
        *(f"  {word}" for word in words[:20]),
        "  and 13 more kinds of problems",
    ]


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
    findings = check_files(opened(folder), strict=False, progress=advanced.append)
    assert (findings.errors, findings.images_read, advanced) == ([], 2, [1, 2, 3, 4])
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


@pytest.mark.tao(36)
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
    settings = PipelineSettings(4, 10, 2, {"semantic": 1.0}, AugmentationSettings(crop=(64, 64)), num_workers=0)
    with pytest.raises(DataError, match=IMAGE + "the image cannot be read"):
        next(train_batches(dataset, settings, first_sample=0))


def test_real_files_pass(shared: Path) -> None:
    findings = findings_of(shared / "data" / "camvid" / "val")
    assert (findings.errors, findings.warnings) == ([], [])
