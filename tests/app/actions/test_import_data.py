"""`import`: what it writes, what it says, and that nothing is lost."""

import json
import re
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner, Result

from oneformer_jax.app.actions.importing.models import FOR_CPUS, FOR_GPUS, ModelSize, fitting, gigabytes
from oneformer_jax.app.cli.commands import app
from oneformer_jax.errors import OneFormerError

SIZE = (48, 64)


def run(*words: str | Path) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, ["import", *map(str, words)])


def write_masks(folder: Path, count: int = 20) -> Path:
    """Noise, whose masks have the classes 0 to 2 and a margin of 255."""
    rng = np.random.default_rng(0)
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    for number in range(count):
        mask = np.zeros(SIZE, np.uint8)
        mask[10:30, 5 : 10 + number], mask[20:40, 30:50], mask[:2] = 1, 2, 255
        cv2.imwrite(str(folder / "images" / f"{number}.png"), rng.integers(0, 255, (*SIZE, 3), np.uint8))
        cv2.imwrite(str(folder / "masks" / f"{number}.png"), mask)
    (folder / "classes.txt").write_text("ground\ndisk\nring\n")
    return folder


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return write_masks(tmp_path / "source")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.slow
def test_what_is_written(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run(source, out, "--val", "0.2")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        "import.html",
        "label_map.json",
        "spec.yaml",
        "train",
        "val",
    ]
    spec = yaml.safe_load((out / "spec.yaml").read_text())
    assert spec["model"]["sem_seg_head"]["num_classes"] == 3
    assert spec["dataset"]["task_prob_train"] == {"semantic": 1.0}
    assert spec["model"]["test"] == {"semantic_on": True, "instance_on": False, "panoptic_on": False}
    assert spec["train"]["monitor"] == "mIoU"
    assert spec["inference"]["mode"] == "semantic"
    height, width = (spec["export"][f"input_{side}"] for side in ("height", "width"))
    assert (height % 32, width % 32) == (0, 0)
    assert 0 <= min(height, width) - spec["dataset"]["augmentation"]["test_min_size"] < 32
    assert spec["dataset"]["augmentation"]["train_crop_size"] == [64, 64]
    assert [label["name"] for label in json.loads((out / "label_map.json").read_text())] == ["ground", "disk", "ring"]
    numbers = {
        split: len(json.loads((out / split / "annotations.json").read_text())["images"]) for split in ("train", "val")
    }
    assert numbers == {"train": 16, "val": 4}
    assert run(source, tmp_path / "again", "--val", "0.2").exit_code == 0
    first, again = contents(out), contents(tmp_path / "again")
    assert {name for name in first if first[name] != again[name]} == {"spec.yaml", "import.html"}, "they name places"
    checked = CliRunner().invoke(app, ["inspect", "data", "--strict", "--spec", str(out / "spec.yaml")])
    assert checked.exit_code == 0, checked.output
    assert "teach nothing" not in checked.output
    assert "no value" not in checked.output


def test_the_page_stands_alone(source: Path, tmp_path: Path) -> None:
    (source / "masks" / "0.png").unlink()
    name = "<b>&'\".png"
    (source / "images" / "1.png").rename(source / "images" / name)
    (source / "masks" / "1.png").rename(source / "masks" / name)
    assert run(source, tmp_path / "out").exit_code == 0
    text = (tmp_path / "out" / "import.html").read_text()
    assert len(re.findall(r"<img alt='[^']*' src='data:image/jpeg;base64,", text)) == 16
    assert not re.search(r"(?:src|href)=['\"](?!data:)", text)
    assert "<b>" not in text
    assert "the picture has no mask of its name" in text
    assert "Nothing says which pictures validate" in text


def test_a_destination_that_is_there_is_kept(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(source, out).exit_code == 0
    (out / "results").mkdir()
    (out / "results" / "log").write_text("1")
    before = contents(out)
    refused = run(source, out)
    assert refused.exit_code == 1
    assert "the folder is not empty" in refused.output
    assert "--overwrite" in refused.output
    assert contents(out) == before
    replaced = run(source, out, "--overwrite", "--val", "0")
    assert replaced.exit_code == 0, replaced.output
    assert not (out / "val").exists()
    assert (out / "results" / "log").read_text() == "1", "what a training wrote stays"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a").write_text("1")
    refused = run(source, tmp_path / "mine", "--overwrite")
    assert "no import wrote it" in refused.output
    assert contents(tmp_path / "mine") == {"a": b"1"}


def test_an_import_that_fails_leaves_nothing(source: Path, tmp_path: Path) -> None:
    shutil.rmtree(source / "images")
    (source / "images").mkdir()
    result = run(source, tmp_path / "out", "--format", "masks")
    assert result.exit_code == 1
    assert "no picture has a mask" in result.output
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "wrong"),
    [
        (["--format", "mask"], "there is no format 'mask'"),
        (["--memory", "much"], "'much' is no size of memory"),
        (["--format", "yolo", "--ignore", "0"], "--ignore: is of no use here"),
        (["--format", "labelme", "--labels", "masks"], "the format labelme has --classes"),
        (["--classes", "/nowhere.txt"], "nowhere.txt: cannot be read"),
    ],
)
def test_what_is_asked_wrongly_is_refused(words: list[str], wrong: str, source: Path, tmp_path: Path) -> None:
    result = run(source, tmp_path / "out", *words)
    assert result.exit_code == 1
    assert wrong in result.output
    assert "Traceback" not in result.output


def test_folders_in_one_another_are_refused(source: Path, tmp_path: Path) -> None:
    for folder in (source, source / "out", tmp_path):
        assert "lie in one another" in run(source, folder).output


def test_a_folder_of_no_known_layout_is_refused_with_the_formats(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    result = run(tmp_path / "source", tmp_path / "out")
    assert "this is no layout of labels that is known" in result.output
    assert "masks: masks of classes" in result.output


def test_a_folder_in_a_folder_is_entered(source: Path, tmp_path: Path) -> None:
    (tmp_path / "VOCdevkit").mkdir()
    source.rename(tmp_path / "VOCdevkit" / "VOC2012")
    result = run(tmp_path / "VOCdevkit", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = json.loads((tmp_path / "out" / "train" / "annotations.json").read_text())["images"]
    assert all("/" not in image["file_name"] for image in names)


def test_a_split_that_shows_no_class_is_left_out(source: Path, tmp_path: Path) -> None:
    for split, names in (("train", range(18)), ("val", range(18, 20))):
        (source / f"{split}.txt").write_text("\n".join(map(str, names)))
    for name in ("18", "19"):
        cv2.imwrite(str(source / "masks" / f"{name}.png"), np.full(SIZE, 255, np.uint8))
    result = run(source, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "No picture of val can be used and shows a class: val is left out." in result.output
    assert not (tmp_path / "out" / "val").exists()
    assert "val" not in yaml.safe_load((tmp_path / "out" / "spec.yaml").read_text())["dataset"]


def test_an_archive_is_copied_out_of_the_cache(source: Path, tmp_path: Path) -> None:
    archive = shutil.make_archive(str(tmp_path / "packed"), "zip", source)
    result = run(archive, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_symlink()]


@pytest.mark.parametrize(("text", "size"), [("24GB", 24), ("16 gib", 16), ("8", 8), ("2048M", 2), ("0.5g", 0.5)])
def test_sizes_of_memory(text: str, size: float) -> None:
    assert gigabytes(text) == size


@pytest.mark.parametrize("text", ["", "GB", "24 TB", "-1", "0", "1e3"])
def test_what_is_no_size_of_memory_is_refused(text: str) -> None:
    with pytest.raises(OneFormerError, match="is no size of memory"):
        gigabytes(text)


NEEDED = {"Swin-L": (6.0, 2.0), "Swin-B": (4.0, 1.5), "Swin-S": (2.0, 1.0), "Swin-T": (1.5, 0.5)}


def needed(model: ModelSize, batch: int) -> float:
    fixed, each = NEEDED[model.name]
    return fixed + batch * each


@pytest.mark.parametrize("images", [10, 5_000, 100_000])
@pytest.mark.parametrize("memory", [2.5, 5.0, 10.0, 40.0, 400.0])
def test_the_largest_model_that_fits_is_taken(memory: float, images: int) -> None:
    model, batch, used = fitting(memory, images, needed)
    assert used == pytest.approx(needed(model, batch))
    assert used <= memory
    assert 2 <= batch <= 16
    assert batch == 16 or needed(model, batch + 1) > memory
    for larger in FOR_GPUS[: FOR_GPUS.index(model)]:
        assert images < larger.least_images or needed(larger, 2) > memory


@pytest.mark.prove
def test_a_model_for_a_gpu(source: Path, tmp_path: Path) -> None:
    """Traces Swin-T; its small siblings are the above."""
    result = run(source, tmp_path / "out", "--memory", "16GB")
    assert result.exit_code == 0, result.output
    assert "Swin-T with batches of 16 needs an estimated" in result.output
    spec = yaml.safe_load((tmp_path / "out" / "spec.yaml").read_text())
    assert spec["model"]["backbone"]["swin"]["embed_dim"] == 96
    assert spec["train"]["precision"] == "bf16-mixed"
    refused = run(source, tmp_path / "small", "--memory", "1GB")
    assert refused.exit_code == 1
    assert "--memory: a training step of Swin-T with 2 images needs" in refused.output
    assert not (tmp_path / "small").exists()


def test_where_nothing_fits_it_is_said() -> None:
    with pytest.raises(OneFormerError, match=r"Swin-T with 2 images needs 2\.5 GB, more than 2\.0 GB"):
        fitting(2.0, 100, needed)


def test_the_small_model_is_that_of_camvid_tiny() -> None:
    spec = yaml.safe_load((Path(__file__).parents[3] / "configs" / "camvid_tiny.yaml").read_text())
    for name, section in FOR_CPUS.model.items():
        for key, value in section.items():
            assert spec["model"][name][key] == value


def spec_of_masks(source: Path, folder: Path, **dataset: object) -> Path:
    split = {"images": str(source / "images"), "panoptic": str(source / "masks")}
    content = {"results_dir": str(folder / "results"), "model": {"sem_seg_head": {"num_classes": 3}}}
    spec = folder / "masks.yaml"
    spec.write_text(yaml.safe_dump({**content, "dataset": {"train": split, "val": split, **dataset}}))
    return spec


@pytest.mark.slow
def test_masks_of_classes_train_without_annotations(source: Path, tmp_path: Path) -> None:
    labels = [{"id": n, "name": name, "isthing": 0} for n, name in enumerate(["ground", "disk", "ring"])]
    (tmp_path / "label_map.json").write_text(json.dumps(labels))
    more = {"label_map": str(tmp_path / "label_map.json"), "task_prob_train": {"semantic": 1}}
    command = ["inspect", "data", "--strict", "--spec", str(spec_of_masks(source, tmp_path, **more))]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 0, result.output
    assert "without annotations: 20 images, and every class is stuff" in result.output
    command = ["inspect", "data", "--spec", str(spec_of_masks(source, tmp_path))]
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, command)
    assert result.exit_code == 1
    assert "dataset.label_map" in result.output


def test_panoptic_pngs_without_annotations_are_said_to_need_them(source: Path, tmp_path: Path) -> None:
    assert run(source, tmp_path / "out").exit_code == 0
    (tmp_path / "out" / "masks").symlink_to(tmp_path / "out" / "train" / "panoptic")
    (tmp_path / "out" / "images").symlink_to(tmp_path / "out" / "train" / "images")
    spec = spec_of_masks(tmp_path / "out", tmp_path, label_map=str(tmp_path / "out" / "label_map.json"))
    result = CliRunner(env={"COLUMNS": "200"}).invoke(app, ["inspect", "data", "--spec", str(spec)])
    assert result.exit_code == 1
    assert "set dataset.train.annotations" in result.output
