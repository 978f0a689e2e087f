"""`predict`: a model and pictures, and no spec."""

import json
import shutil
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from oneformer_jax.checkpoints.read import load_checkpoint
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.datasets.images import read_image, read_panoptic
from oneformer_jax.models import oneformer
from oneformer_jax.predict.draw import draw_panoptic
from oneformer_jax.predict.predictor import load_model
from oneformer_jax.predict.selection import only

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def decided(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose model finds segments, as the one that is hardly trained does not: random, but sure of the classes."""
    known = load_checkpoint(trained / "train")
    params = oneformer.init(known.config, jax.random.key(0))
    params["predictor"]["class_embed"]["kernel"] *= 40
    folder = tmp_path_factory.mktemp("decided")
    with Checkpoints(folder, keep=0, monitor="mIoU") as store:
        store.save(params, None, known.description)
        store.wait()
    return folder


@pytest.fixture
def photos(workspace: Path, tmp_path: Path) -> Path:
    """Three pictures of two sizes in two folders, two of one name; a text beside them."""
    first, second, third = sorted((workspace / "data" / "val" / "images").iterdir())
    (tmp_path / "photos" / "south").mkdir(parents=True)
    shutil.copy(first, tmp_path / "photos" / "x.png")
    shutil.copy(second, tmp_path / "photos" / "south" / "x.png")
    cv2.imwrite(tmp_path / "photos" / "south" / "wide.jpg", cv2.resize(cv2.imread(third), (96, 48)))
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    return tmp_path / "photos"


def files_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def test_pictures_in_folders_are_predicted_without_a_spec(
    decided: Path, photos: Path, command_line, tmp_path: Path
) -> None:
    """Into a folder of their own. The results are those of the library."""
    (tmp_path / "predictions").mkdir()
    result = command_line("predict", decided, "photos", "photos/x.png", "--batch-size", "2", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "3 images (panoptic): predictions-2/panoptic" in result.stdout
    folder = tmp_path / "predictions-2" / "panoptic"
    names = {"photos_x": photos / "x.png", "south_x": photos / "south/x.png", "wide": photos / "south/wide.jpg"}
    raw = {f"{name}{suffix}" for name in names for suffix in (".png", ".jpg")}
    assert files_below(folder) == raw | {"panoptic.json", "label_map.json"}
    content = json.loads((folder / "panoptic.json").read_text())
    assert [image["file_name"] for image in content["images"]] == ["wide.jpg", "south/x.png", "photos/x.png"]
    model = load_model(decided)
    for name, path in names.items():
        expected = model.predict(path, "panoptic").panoptic
        assert expected is not None
        assert expected.segments
        assert (read_panoptic(folder / f"{name}.png") == expected.ids).mean() > 0.99
        overlay, drawn = cv2.imread(folder / f"{name}.jpg"), draw_panoptic(read_image(path), expected, model.categories)
        assert overlay.shape == drawn.shape
        assert np.abs(overlay[..., ::-1].astype(int) - drawn).mean() < 12, "but for JPEG"


def test_options_say_what_is_written(decided: Path, photos: Path, command_line, tmp_path: Path) -> None:
    model = load_model(decided)
    picture = photos / "x.png"
    every = model.predict(picture, "instance").instance
    assert every
    best = max(every, key=lambda instance: instance.score)
    name, threshold = model.categories.names[best.category], best.score / 2
    words = ["predict", decided, f"{photos}/*.png", "--task", "instance", "--classes", name]
    words += ["--threshold", threshold, "--format", "json", "--hide-labels", "--output", tmp_path / "out"]
    result = command_line(*words)
    assert result.returncode == 0, result.stdout + result.stderr
    assert files_below(tmp_path / "out") == {".lock", "instance/instance.json", "instance/label_map.json"}
    found = json.loads((tmp_path / "out" / "instance" / "instance.json").read_text())
    expected = [i for i in every if i.category == best.category and i.score >= threshold]
    assert [entry["score"] for entry in found] == pytest.approx([instance.score for instance in expected], rel=1e-3)
    assert {entry["category_id"] for entry in found} == {model.categories.items[best.category].id}
    first = coco_mask.decode(found[0]["segmentation"])
    assert (first == coco_mask.decode(expected[0].mask)).mean() > 0.99

    result = command_line(
        *("predict", decided, picture, "--task", "semantic", "--classes", name, "--format", "png"),
        *("--output", tmp_path / "out"),
    )
    assert result.returncode == 0, result.stdout + result.stderr
    grey = cv2.imread(tmp_path / "out" / "semantic" / "x.png", cv2.IMREAD_UNCHANGED)
    semantic = only(model.predict(picture, "semantic"), {best.category}).semantic
    assert semantic is not None
    assert (grey == np.where(semantic < 0, 255, semantic)).mean() > 0.99


def test_what_cannot_be_read_is_listed_at_the_end_and_the_others_are_done(
    trained: Path, photos: Path, command_line, tmp_path: Path
) -> None:
    damaged = photos / "damaged.png"
    damaged.write_bytes((photos / "x.png").read_bytes()[:300])
    (photos / "gone.png").symlink_to("nowhere.png")
    result = command_line("predict", trained / "train", photos, photos / "notes.txt", "-o", tmp_path / "out")
    assert result.returncode == 1, result.stdout + result.stderr
    last = result.stderr[result.stderr.index("error: ") :]
    assert "3 images could not be used and had to be skipped; the results of the other 3 are complete" in last
    assert f"{damaged}: the image cannot be read" in last
    assert f"{photos / 'notes.txt'}: the image cannot be read" in last
    assert f"{photos / 'gone.png'}: it is no file" in last
    assert "Traceback" not in result.stderr
    content = json.loads((tmp_path / "out" / "panoptic" / "panoptic.json").read_text())
    assert len(content["images"]) == 3


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["missing", "photos"], 1, "missing: no such file or folder"),
        (["{model}", "photos/*.gif"], 1, "no picture fits this pattern"),
        (["{model}", "photos", "--classes", "dsk"], 1, "the model has no class 'dsk': did you mean 'disk'?"),
        (["{model}", "photos", "--format", "jpg"], 2, "found 'jpg', but --task panoptic has overlay, png, json"),
        (["{model}", "photos", "--task", "semantic", "--threshold", "0.5"], 2, "every pixel has a class"),
        (["{model}"], 2, "Missing argument 'SOURCE'"),
    ],
)
def test_what_is_wrong_leaves_nothing_behind(
    trained: Path, photos: Path, command_line, tmp_path: Path, words: list[str], code: int, told: str
) -> None:
    result = command_line("predict", *(word.format(model=trained / "train") for word in words), cwd=tmp_path)
    assert result.returncode == code, result.stdout + result.stderr
    assert told in " ".join(result.stderr.replace("│", " ").split())
    assert not list(tmp_path.glob("predictions*"))
