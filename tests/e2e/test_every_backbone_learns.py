"""No backbone is decoration: over seeds each learns the drawn shapes as Swin does, and RADIO learns pictures by heart.

A run is one of `configs/quickstart.yaml` with other pictures and, but for Swin, another backbone of the same size.
"""

import json
from pathlib import Path
from statistics import mean

import pytest
from conftest import ROOT, CommandLine

from oneformer_jax.data.drawn_shapes import write_drawn_shapes

pytestmark = pytest.mark.prove  # `make test`: maps and gradients of every backbone, in parity/test_backbone_goldens.py

SEEDS = (1, 2, 3)
STEPS, BATCH = 600, 8
ALIKE = "drop_path_rate: 0.0, init: fan_in"
BACKBONES = {
    "swin": (),
    "dinat": (
        "model.backbone.name=D2DiNAT",
        "model.backbone.dinat={embed_dim: 32, depths: [2, 2, 2, 2], num_heads: [2, 4, 8, 8], kernel_size: 3, "
        f"dilations: [[1, 4], [1, 2], [1, 2], [1, 1]], {ALIKE}}}",
    ),
    "convnext": (
        "model.backbone.name=D2ConvNeXt",
        f"model.backbone.convnext={{dims: [32, 64, 128, 256], depths: [2, 2, 2, 2], {ALIKE}}}",
    ),
    "radio": (
        "model.backbone.name=D2RADIO",
        "model.backbone.radio={embed_dim: 96, depth: 4, num_heads: 4, mlp_width: 192, cpe_max_size: 256, init: fan_in}",
    ),
}


def learned(command_line: CommandLine, data: Path, results: Path, *keys: str, size: int, steps: int) -> float:
    """The mIoU of the validation that ends a training on these pictures of `size`."""
    files = {"images": "images", "panoptic": "panoptic", "annotations": "annotations.json"}
    places = [f"dataset.{s}.{key}={data / s / file}" for s in ("train", "val") for key, file in files.items()]
    sizes = [f"dataset.augmentation.train_crop_size=[{size},{size}]"]
    sizes += [f"dataset.augmentation.{name}={size}" for name in ("test_min_size", "test_max_size")]
    length = ["train.num_epochs=1", f"train.iters_per_epoch={steps}", "train.validation_interval=1"]
    words = [f"results_dir={results}", f"dataset.label_map={data / 'label_map.json'}", *places, *sizes, *length, *keys]
    result = command_line("train", "--spec", ROOT / "configs" / "quickstart.yaml", *words, timeout=1800)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = map(json.loads, (results / "train" / "log.jsonl").read_text().splitlines())
    return [line["mIoU"] for line in lines if line["kind"] == "validation"][-1]


def test_dinat_and_convnext_learn_as_swin_does(command_line: CommandLine, tmp_path: Path) -> None:
    write_drawn_shapes(tmp_path / "data", {"train": 600, "val": 60}, size=64, seed=3)
    scores: dict[str, list[float]] = {}
    for name in ("swin", "dinat", "convnext"):
        for seed in SEEDS:
            keys = (*BACKBONES[name], f"train.seed={seed}", f"dataset.train.batch_size={BATCH}")
            place = tmp_path / f"{name}{seed}"
            score = learned(command_line, tmp_path / "data", place, *keys, size=64, steps=STEPS)
            scores.setdefault(name, []).append(score)
    print(scores)
    assert mean(scores["swin"]) > 0.4, scores  # or there is nothing to compare with
    for name in ("dinat", "convnext"):
        assert mean(scores[name]) >= 0.85 * mean(scores["swin"]), scores


def test_radio_learns_eight_pictures_by_heart(command_line: CommandLine, tmp_path: Path) -> None:
    data = tmp_path / "data"
    write_drawn_shapes(data, {"train": 8}, size=128, seed=3)
    (data / "val").symlink_to("train")
    keys = (*BACKBONES["radio"], "dataset.train.batch_size=8", "dataset.val.batch_size=8")
    assert learned(command_line, data, tmp_path / "radio", *keys, size=128, steps=300) >= 0.9
