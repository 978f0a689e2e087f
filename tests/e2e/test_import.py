"""From a folder of masks to a trained model: the spec that an import writes trains as it stands."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.slow

TINY = (
    *("model.backbone.swin.embed_dim=8", "model.backbone.swin.depths=[1,1,1,1]"),
    *("model.backbone.swin.num_heads=[1,1,2,2]", "model.backbone.swin.window_size=4"),
    *("model.backbone.swin.init=original", "model.backbone.swin.drop_path_rate=0.1"),
    *("model.sem_seg_head.transformer_enc_layers=1", "model.one_former.nheads=2"),
    *("model.one_former.num_object_queries=12", "model.one_former.dim_feedforward=32"),
    *("model.one_former.dec_layers=2", "model.one_former.train_num_points=64", "model.text_encoder.n_ctx=2"),
    *("dataset.train.batch_size=4", "train.num_epochs=1", "train.optim.warmup_iters=1"),
)
"""The model of the other end-to-end tests, whose programs are compiled already."""


def masks_of(workspace: Path, folder: Path) -> Path:
    """The drawn pictures with a mask of classes for each."""
    for split in ("train", "val"):
        data = workspace / "data" / split
        content = json.loads((data / "annotations.json").read_text())
        for name in ("images", "masks"):
            (folder / split / name).mkdir(parents=True)
        for entry in content["annotations"]:
            ids = np.asarray(Image.open(data / "panoptic" / entry["file_name"])).astype(int) @ (1, 256, 65536)
            mask = np.full(ids.shape, 255, np.uint8)
            for info in entry["segments_info"]:
                mask[ids == info["id"]] = info["category_id"] - 1
            cv2.imwrite(str(folder / split / "masks" / entry["file_name"]), mask)
            image = (data / "images" / entry["file_name"]).read_bytes()
            (folder / split / "images" / entry["file_name"]).write_bytes(image)
    return folder


def test_masks_become_a_trained_model(workspace: Path, command_line, tmp_path: Path) -> None:
    source, out = masks_of(workspace, tmp_path / "source"), tmp_path / "out"
    result = command_line("import", source, out)
    assert result.returncode == 0, result.stdout + result.stderr
    result = command_line("train", "--spec", out / "spec.yaml", *TINY)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "teach nothing" not in result.stdout + result.stderr
    assert "no value" not in result.stdout + result.stderr
    lines = [json.loads(line) for line in (out / "results" / "train" / "log.jsonl").read_text().splitlines()]
    assert any("mIoU" in line for line in lines)
    assert (out / "results" / "train" / "best").exists()
