"""Training and evaluation on COCO instance files, and on several files, from the command line."""

import json
from pathlib import Path
from typing import Any

import pytest

from oneformer_jax.data.datasets.sources import Source, open_sources

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def instances(workspace: Path) -> dict[str, Path]:
    """The drawn pictures of each split with things only, each masked by its box: touching things overlap."""
    paths = {}
    for split in ("train", "val"):
        folder = workspace / "data" / split
        content = json.loads((folder / "annotations.json").read_text())
        annotations: list[dict[str, Any]] = []
        for annotation in content["annotations"]:
            for info in annotation["segments_info"]:
                x, y, w, h = info["bbox"]
                outline = [x, y, x + w, y, x + w, y + h, x, y + h]
                entry = {"id": len(annotations) + 1, "image_id": annotation["image_id"], "iscrowd": 0}
                if info["category_id"] <= 5:
                    annotations.append(entry | {"category_id": info["category_id"], "segmentation": [outline]})
        paths[split] = folder / "boxes.json"
        paths[split].write_text(json.dumps({**content, "annotations": annotations}))
    return paths


@pytest.mark.prove  # `make test`: data/test_coco_instances.py for the planes, e2e/test_your_data.py for a training
def test_an_instance_file_trains_and_is_scored_beside_a_panoptic_one(
    workspace: Path, instances: dict[str, Path], command_line, tmp_path: Path
) -> None:
    data = workspace / "data"
    assert open_sources([Source(instances["train"], data / "train" / "images")]).planes > 1
    keys = [
        "-e",
        workspace / "spec.yaml",
        f"results_dir={tmp_path}",
        f"dataset.train.annotations={instances['train']}",
        "dataset.train.panoptic=",
        f"dataset.val.annotations=[{data}/val/annotations.json,{instances['val']}]",
        f"dataset.val.panoptic=[{data}/val/panoptic,'']",
        "dataset.val.names=[whole,boxes]",
    ]
    result = command_line("train", *keys, "train.num_epochs=1", "train.validation_interval=100")
    assert result.returncode == 0, result.stdout + result.stderr
    result = command_line("evaluate", *keys, f"evaluate.checkpoint={tmp_path / 'train'}")
    assert result.returncode == 0, result.stdout + result.stderr
    metrics = json.loads((tmp_path / "evaluate" / "metrics.json").read_text())
    assert [metrics[name] for name in ("num_images", "num_images/whole", "num_images/boxes")] == [6, 3, 3]
    for score in ("mIoU", "PQ", "AP"):
        assert {score, f"{score}/whole", f"{score}/boxes"} <= set(metrics)
    assert metrics["PQ_stuff/boxes"] is None or metrics["PQ_stuff/boxes"] <= 1
