"""docs/your-data.md, word by word: every block of commands runs on a folder like the one that the page shows."""

import json
import re
import shlex
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from PIL import Image

pytestmark = pytest.mark.slow
PAGE = Path(__file__).resolve().parents[2] / "docs" / "your-data.md"

TINY = (
    *("model.backbone.swin.embed_dim=8", "model.backbone.swin.depths=[1,1,1,1]"),
    *("model.backbone.swin.num_heads=[1,1,2,2]", "model.backbone.swin.window_size=4"),
    *("model.backbone.swin.init=original", "model.backbone.swin.drop_path_rate=0.1"),
    *("model.sem_seg_head.transformer_enc_layers=1", "model.one_former.nheads=2"),
    *("model.one_former.num_object_queries=12", "model.one_former.dim_feedforward=32"),
    *("model.one_former.dec_layers=2", "model.one_former.train_num_points=64", "model.text_encoder.n_ctx=2"),
    *("model.text_encoder.proj_num_layers=1", "model.one_former.dropout=0.1", "train.optim.lr=1.0e-3"),
    *("train.optim.backbone_multiplier=0.1", "train.optim.warmup_iters=1"),
    *("dataset.train.batch_size=4", "train.num_epochs=2", "train.validation_interval=2"),
)
"""The model of the other end-to-end tests, whose programs are compiled already, instead of the one of the spec."""


def commands(section: str) -> list[list[str]]:
    """The commands of the last block of a section."""
    text = PAGE.read_text().partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    block = re.findall(r"```\n(oneformer .*?)```", text, re.DOTALL)[-1]
    lines = [shlex.split(line) for line in block.splitlines()]
    assert all(words[0] == "oneformer" for words in lines)
    return [words[1:] for words in lines]


class Split:
    """The drawn pictures of a split with their annotations."""

    def __init__(self, workspace: Path, split: str) -> None:
        self.folder = workspace / "data" / split
        self.content = json.loads((self.folder / "annotations.json").read_text())

    def __iter__(self):
        for entry in self.content["annotations"]:
            pixels = Image.open(self.folder / "panoptic" / entry["file_name"])
            yield entry, np.asarray(pixels).astype(int) @ (1, 256, 65536)


def write_masks(workspace: Path, source: Path) -> None:
    for name in ("images", "masks"):
        (source / name).mkdir(parents=True)
    for split in ("train", "val"):
        for entry, ids in Split(workspace, split):
            mask = np.full(ids.shape, 255, np.uint8)
            for info in entry["segments_info"]:
                mask[ids == info["id"]] = info["category_id"] - 1
            name = f"{split}_{entry['file_name']}"
            cv2.imwrite(str(source / "masks" / name), mask)
            shutil.copy(workspace / "data" / split / "images" / entry["file_name"], source / "images" / name)
    names = [category["name"] for category in Split(workspace, "val").content["categories"]]
    (source / "classes.txt").write_text("\n".join(names))


def outlines(ids: np.ndarray, number: int) -> list[list[float]]:
    contours, _ = cv2.findContours((ids == number).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)
    return [contour.reshape(-1).tolist() for contour in contours if len(contour) > 2]


def write_polygons(workspace: Path, source: Path) -> None:
    for split in ("train", "val"):
        for name in ("images", "labels"):
            (source / name / split).mkdir(parents=True)
        for entry, ids in Split(workspace, split):
            lines = [
                " ".join([str(info["category_id"] - 1), *(f"{value / len(ids):.5f}" for value in outline)])
                for info in entry["segments_info"]
                if info["category_id"] <= 5
                for outline in outlines(ids, info["id"])
            ]
            shutil.copy(workspace / "data" / split / "images" / entry["file_name"], source / "images" / split)
            (source / "labels" / split / Path(entry["file_name"]).with_suffix(".txt")).write_text("\n".join(lines))
    names = [category["name"] for category in Split(workspace, "val").content["categories"][:5]]
    content = {"train": "images/train", "val": "images/val", "names": names}
    (source / "data.yaml").write_text(yaml.safe_dump(content))


def write_coco(workspace: Path, source: Path) -> None:
    (source / "annotations").mkdir(parents=True)
    split = Split(workspace, "train")
    shutil.copytree(split.folder / "images", source / "images" / "default")
    annotations: list[dict[str, object]] = []
    for entry, ids in split:
        for info in entry["segments_info"]:
            if polygons := outlines(ids, info["id"]):
                found = {"id": len(annotations) + 1, "image_id": entry["image_id"], "segmentation": polygons}
                annotations.append({**found, "category_id": info["category_id"]})
    content = split.content | {"annotations": annotations}
    (source / "annotations" / "instances_default.json").write_text(json.dumps(content))


SECTIONS = {"Masks": write_masks, "Polygons": write_polygons, "COCO": write_coco}


@pytest.mark.parametrize(
    "section",
    ["Masks", pytest.param("Polygons", marks=pytest.mark.prove), pytest.param("COCO", marks=pytest.mark.prove)],
)
def test_the_commands_of_a_section_lead_to_a_model(section: str, workspace: Path, command_line, tmp_path: Path) -> None:
    first, *others = commands(section)
    assert first[0] == "import"
    SECTIONS[section](workspace, tmp_path / first[1])
    for words in [first, *others]:
        more = () if words[0] == "import" else TINY
        result = command_line(*words, *more, cwd=tmp_path)
        said = result.stdout + result.stderr
        assert result.returncode == 0, said
        assert not re.search("teach nothing|have no value", said)
    last = others[-1][0]
    assert (tmp_path / "data" / "results" / last / "status.json").read_text().count("SUCCESS")


@pytest.mark.parametrize("section", SECTIONS)
def test_the_import_of_a_section(section: str, workspace: Path, command_line, tmp_path: Path) -> None:
    """The small sibling of the above: what is written is checked as a training does."""
    first = commands(section)[0]
    SECTIONS[section](workspace, tmp_path / first[1])
    result = command_line(*first, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    result = command_line("inspect", "data", "--spec", "data/spec.yaml", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    assert not re.search("teach nothing|have no value", result.stdout + result.stderr)


def test_the_page_lists_every_format() -> None:
    from oneformer_jax.data.importers.formats import FORMATS

    text = PAGE.read_text().partition("\n## Layouts\n")[2]
    assert set(re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)) == {"--format", *(it.name for it in FORMATS)}
