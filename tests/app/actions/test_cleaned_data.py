"""`inspect data --fix`: what is left can be used, all of it is there that could be, and nothing else has changed."""

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from defects import cut_jpeg, in_json
from typer.testing import CliRunner, Result

from oneformer_jax.app.cli.commands import app
from oneformer_jax.data.drawn_shapes import write_drawn_shapes

IMAGES = 8


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    write_drawn_shapes(folder, {"train": IMAGES}, size=64, seed=1)
    return folder / "train"


@pytest.fixture
def data(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return Path(shutil.copytree(drawn, tmp_path / "data"))


def fixed(data: Path, output: Path, **keys: str) -> Result:
    split = {"annotations": str(data / "annotations.json"), "images": str(data / "images"), **keys}
    spec = data.parent / "spec.yaml"
    spec.write_text(json.dumps({"results_dir": str(data.parent / "results"), "dataset": {"train": split}}))
    return CliRunner().invoke(app, ["inspect", "data", "--fix", str(output), "--spec", str(spec)])


def contents(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cleaned(output: Path) -> dict[str, Any]:
    strict = CliRunner().invoke(app, ["inspect", "data", "--strict", "--spec", str(output / "spec.yaml")])
    assert strict.exit_code == 0, strict.output
    assert "not as the format says" not in strict.output
    return json.loads((output / "train" / "annotations.json").read_text())


@pytest.mark.slow
def test_a_sound_file_stays_as_it_is(data: Path, tmp_path: Path) -> None:
    in_json("licenses", value=[{"id": 1}])(data)
    assert fixed(data, tmp_path / "out", panoptic=str(data / "panoptic")).exit_code == 0
    assert cleaned(tmp_path / "out") == json.loads((data / "annotations.json").read_text())
    spec = yaml.safe_load((tmp_path / "out" / "spec.yaml").read_text())
    assert spec["results_dir"] == str(tmp_path / "out" / "results"), "not that of the data as it was"


@pytest.mark.slow
def test_panoptic_data_keeps_the_images_that_can_be_used(data: Path, tmp_path: Path) -> None:
    whole = json.loads((data / "annotations.json").read_text())
    cut_jpeg(data)  # of image 1
    (data / "images" / "000003.png").unlink()
    (data / "panoptic" / "000004.png").write_bytes(b"")
    in_json("annotations", 5, "segments_info", 0, "category_id", value=99)(data)
    in_json("annotations", 6, "image_id", value=0)(data)
    in_json("annotations", 7, "segments_info", 0, "iscrowd", remove=True)(data)
    before = contents(data)
    result = fixed(data, tmp_path / "out", panoptic=str(data / "panoptic"))
    assert result.exit_code == 0, result.output
    assert f"train: 3 of {IMAGES} images" in result.output
    assert contents(data) == before
    left = cleaned(tmp_path / "out")
    assert [image["id"] for image in left["images"]] == [0, 2, 7]
    assert left["annotations"] == [whole["annotations"][i] for i in (0, 2, 7)]
    report = (tmp_path / "out" / "report.txt").read_text()
    for text in (
        "left out: ",
        "000001.png: image 1: the image cannot be read",
        "the image 000003.png, but there is no such file",
        "panoptic/000004.png: image 4: the image cannot be read",
        "image 5: category_id 99 of segment",
        "annotated image id 0 appears twice",
        "changed: ",
        "1 entry without iscrowd: read as 0",
    ):
        assert text in report

    again = fixed(data, tmp_path / "out", panoptic=str(data / "panoptic"))
    assert again.exit_code == 1
    assert "the folder is not empty" in again.output


@pytest.mark.slow
def test_instance_data_keeps_the_masks_that_can_be_used(data: Path, tmp_path: Path) -> None:
    lists = json.loads((data / "annotations.json").read_text())
    outline = [[4, 4, 30, 4, 30, 30.5]]
    sound = [{"id": n, "image_id": n % 4, "category_id": 1, "iscrowd": 0, "segmentation": outline} for n in range(1, 9)]
    entries = copy.deepcopy(sound)
    entries[0] |= {"segmentation": [], "bbox": [1, 1, 4, 4]}
    entries[1] |= {"id": "2", "category_id": 1.0}
    entries[2] |= {"category_id": 77}
    entries[3] |= {"segmentation": [[900, 4, 30, 4, 30, 30]]}
    entries[4] |= {"segmentation": [[1, 1, 2, 2], *outline]}
    entries[5] |= {"image_id": 4711}
    entries[7] |= {"id": 7}
    lists["images"][0] |= {"width": 64.0, "height": "64"}
    (data / "annotations.json").write_text(json.dumps(lists | {"annotations": [*entries, {"id": 9}, "nine"]}))
    result = fixed(data, tmp_path / "out")
    assert result.exit_code == 0, result.output
    left = cleaned(tmp_path / "out")
    assert left["images"] == [image | {"width": 64, "height": 64} for image in lists["images"]]
    assert left["annotations"] == [sound[i] for i in (1, 4, 6, 7)]
    assert f"train: {IMAGES} of {IMAGES} images, 4 segments" in result.output
    report = (tmp_path / "out" / "report.txt").read_text()
    assert report.count("left out: ") == 7
    for entry in (
        "annotation 1: with a box and without a mask",
        "annotation 5: with a polygon of fewer than three points",
    ):
        assert f"left out: {entry}" in report.replace(f"{data / 'annotations.json'}: ", "")
        assert entry in " ".join(result.output.split())
    assert "1 entry with the id of one before: numbered anew (annotation 7)" in report
    assert "1 entry with a box and without a mask (annotation 1): left out" in report


def test_where_nothing_is_left_it_says_why(data: Path, tmp_path: Path) -> None:
    shutil.rmtree(data / "images")
    (data / "images").mkdir()
    result = fixed(data, tmp_path / "out", panoptic=str(data / "panoptic"))
    assert result.exit_code == 1
    assert "no annotation is left that can be used" in result.output
    assert "000000.png, but there is no such file" in result.output
