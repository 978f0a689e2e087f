"""`inspect data`, `inspect spec` and `inspect model` on the command line, and the checks before training."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from oneformer_jax.app.actions.model import cost
from oneformer_jax.app.actions.model.cost import parameter_counts
from oneformer_jax.app.cli.commands import app
from oneformer_jax.app.run.opened import checked_datasets
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.settings.data import splits_with_data
from oneformer_jax.app.settings.model import model_config
from oneformer_jax.app.spec import load_spec
from oneformer_jax.data.datasets import coco_file
from oneformer_jax.data.drawn_shapes import write_drawn_shapes
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig

SPEC = """
results_dir: {folder}/results
model:
  backbone:
    swin: {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4, mlp_ratio: 2.0}}
  sem_seg_head: {{num_classes: 7, convs_dim: 64, mask_dim: 64, transformer_enc_layers: 1}}
  one_former:
    {{hidden_dim: 64, nheads: 2, num_object_queries: 12, dim_feedforward: 32, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 64}}
  text_encoder: {{width: 64, num_layers: 1, n_ctx: 2, proj_num_layers: 1}}
dataset:
  train:
    images: {folder}/train/images
    annotations: {folder}/train/annotations.json
    panoptic: {folder}/train/panoptic
    batch_size: 4
  val:
    images: {folder}/val/images
    annotations: {folder}/val/annotations.json
    panoptic: {folder}/val/panoptic
  label_map: {folder}/label_map.json
  augmentation: {{train_crop_size: [64, 96]}}
  task_prob_train: {{semantic: 1, instance: 1, panoptic: 2}}
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ONEFORMER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def spec(tmp_path: Path) -> Path:
    write_drawn_shapes(tmp_path, {"train": 6, "val": 3}, size=64, seed=5)
    (tmp_path / "spec.yaml").write_text(SPEC.format(folder=tmp_path))
    return tmp_path / "spec.yaml"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.slow
def test_data_is_described_and_drawn(spec: Path) -> None:
    result = run("inspect", "data", "-e", spec)
    assert result.exit_code == 0, result.output
    infos = [
        (annotation["image_id"], info)
        for annotation in json.loads((spec.parent / "train" / "annotations.json").read_text())["annotations"]
        for info in annotation["segments_info"]
    ]
    ours = [(image, info["area"]) for image, info in infos if info["category_id"] == 1]
    share = sum(area for _, area in ours) / (6 * 64 * 64)
    row = next(line.split() for line in result.output.splitlines() if " disk " in line)
    assert row[:6] == ["0", "disk", "thing", str(len({image for image, _ in ours})), str(len(ours)), f"{share:.2%}"]
    for text in ("64 x 64 (6)", "64 x 64 (3)", "6, 0 of them without a segment", f"{len(infos)}, 0 of them crowds"):
        assert text in result.output
    assert "semantic 25%, instance 25%, panoptic 50%" in result.output
    page = np.asarray(Image.open(spec.parent / "results" / "inspect" / "samples.png"))
    assert page.shape[1] > 4 * 480 > 4 * 320  # four crops of 320 x 480 in a row
    assert page.shape[0] > 4 * 320


@pytest.mark.tao(22)
def test_data_problems_of_all_splits_are_told_together(spec: Path) -> None:
    for place in ("train/images/000001.png", "val/panoptic/000002.png"):
        (spec.parent / place).write_bytes(b"")
    for command in (["inspect", "data", "--strict"], ["train"]):
        result = run(*command, "-e", spec, "model.sem_seg_head.num_classes=5")
        assert result.exit_code == 1
        assert "Traceback" not in result.output
        assert "error: 4 problems\n" in result.output
        for text in (
            "train/annotations.json: num_classes is 5, but there are 7 categories",
            "val/annotations.json: num_classes is 5",
            "train/images/000001.png: image 1: the image cannot be read",
            "val/panoptic/000002.png: image 2: the image cannot be read",
            "set model.sem_seg_head.num_classes: 7",
        ):
            assert text in result.output
    last = json.loads((spec.parent / "results" / "train" / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "FAILURE"
    assert "4 problems" in last["message"]
    assert not (spec.parent / "results" / "inspect").exists()


def test_problems_of_a_file_that_two_splits_share_are_told_once(spec: Path) -> None:
    (spec.parent / "train" / "images" / "000001.png").write_bytes(b"")
    train = spec.parent / "train"
    keys = {"images": "images", "panoptic": "panoptic", "annotations": "annotations.json"}
    shared = [f"dataset.val.{key}={train / name}" for key, name in keys.items()]
    for command in (["inspect", "data", "--strict"], ["train"]):
        result = run(*command, "-e", spec, *shared)
        assert result.exit_code == 1
        assert result.output.count("000001.png: image 1: the image cannot be read") == 1


@pytest.mark.slow
def test_what_was_left_out_is_in_the_status_file_of_a_training(spec: Path) -> None:
    path = spec.parent / "train" / "annotations.json"
    content = json.loads(path.read_text())
    outline = [[4, 4, 30, 4, 30, 30]]
    masks = [{"id": n, "image_id": n, "category_id": 1, "segmentation": outline} for n in range(4)]
    masks += [{"id": 9, "image_id": 1, "category_id": 1, "segmentation": [], "bbox": [0, 0, 5, 5]}]
    path.write_text(json.dumps(content | {"annotations": masks}))
    keys = ["dataset.train.panoptic=", "dataset.val.annotations=", "dataset.val.panoptic="]
    result = run(
        "train", "-e", spec, *keys, "dataset.task_prob_train={panoptic: 0.5}", "train.pretrained_model=nowhere"
    )
    assert result.exit_code == 1  # there are no such weights
    lines = map(json.loads, (spec.parent / "results" / "train" / "status.json").read_text().splitlines())
    warnings = "\n".join(line["message"] for line in lines if line["verbosity"] == "WARNING")
    assert "1 entry with a box and without a mask (annotation 9): left out" in warnings
    assert "4 entries without iscrowd: read as 0 (annotation 0, annotation 1, annotation 2, ...)" in warnings
    assert "6 of 7 classes have no segment in" in warnings


def in_annotations(spec: Path, split: str, **values: object) -> None:
    """Sets values of every segment."""
    path = spec.parent / split / "annotations.json"
    content = json.loads(path.read_text())
    for annotation in content["annotations"]:
        annotation["segments_info"] = [info | values for info in annotation["segments_info"]]
    path.write_text(json.dumps(content))


@pytest.mark.parametrize("command", [("train",), ("inspect", "data"), ("automl",)])
def test_data_from_which_nothing_can_be_learned_is_refused(spec: Path, command: tuple[str, ...]) -> None:
    in_annotations(spec, "train", iscrowd=1)
    result = run(*command, "-e", spec)
    assert result.exit_code == 1
    assert "nothing can be learned: all" in result.output
    assert "segments are crowds (iscrowd: 1)" in result.output
    assert "set iscrowd: 0" in result.output


@pytest.mark.slow
def test_what_validation_data_does_not_define_is_said(spec: Path) -> None:
    in_annotations(spec, "val", iscrowd=1)
    switches = ["model.test.panoptic_on=true"]
    result = run("inspect", "data", "-e", spec, *switches)
    assert result.exit_code == 0, result.output
    assert "PQ, SQ, RQ, PQ_things" in result.output
    assert "set model.test.panoptic_on: false" in result.output
    result = run("train", "-e", spec, *switches, "train.monitor=PQ")
    assert result.exit_code == 1
    assert "train.monitor: PQ is never defined" in result.output
    assert "choose one of mIoU, pixel_accuracy" in result.output
    result = run("automl", "-e", spec, *switches, "automl.metric=PQ")
    assert result.exit_code == 1
    assert "automl.metric: PQ is never defined" in result.output


@pytest.mark.tao(22)
def test_a_label_map_in_another_order_is_refused(spec: Path) -> None:
    path = spec.parent / "label_map.json"
    entries = json.loads(path.read_text())
    path.write_text(json.dumps([entries[1], entries[0], *entries[2:]]))
    result = run("inspect", "data", "-e", spec)
    assert result.exit_code == 1
    assert "the classes from 0 on are 'square', 'disk'" in result.output


def test_without_data_the_key_is_named(spec: Path) -> None:
    result = run("inspect", "data", "-e", spec, "dataset.train.annotations=", "dataset.val.annotations=")
    assert result.exit_code == 1
    assert "dataset.train.annotations" in result.output


@pytest.mark.tao(36)
def test_files_that_passed_are_not_checked_again(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parsed: list[Path] = []
    read_json = coco_file.read_json
    monkeypatch.setattr(coco_file, "read_json", lambda path: parsed.append(path) or read_json(path))

    def said() -> str:
        console = Screen(width=200, force_terminal=False)
        with console.capture() as capture:
            checked_datasets(splits_with_data(load_spec(spec)), console)
        return capture.get()

    assert "train: headers of 6 images and pixels of 6 checked" in said()
    assert len(parsed) == 2  # each file once
    again = said()
    assert "train: the files were checked before and have not changed" in again
    assert "headers" not in again
    (spec.parent / "train" / "images" / "000001.png").touch()
    assert "train: headers of 6 images" in said()


def test_spec_shows_what_is_set_and_where(spec: Path) -> None:
    result = run("inspect", "spec", "-e", spec, "train.num_epochs=7", "encryption_key=secret")
    assert result.exit_code == 0, result.output
    assert "secret" not in result.output
    rows = {line.split()[0]: line.split() for line in result.output.splitlines() if line.strip()}
    assert rows["train.num_epochs"][1:] == ["7", "50", "command", "line"]
    lines = SPEC.splitlines()
    line = next(number for number, text in enumerate(lines, start=1) if "batch_size: 4" in text)
    output = result.output.replace("\n", "")
    assert rows["dataset.train.batch_size"][1:3] == ["4", "1"]
    assert f"spec.yaml:{line}" in "".join(output.split())
    assert "the key is never stored" in " ".join(output.split())
    assert "train.optim.lr" not in rows  # as it is by default


def test_spec_shows_defaults_that_decide_because_they_are_set(spec: Path) -> None:
    said = run("inspect", "spec", "-e", spec, "model.test.overlap_threshold=0.5", "inference.mode=semantic").output
    row = next(line.split() for line in said.splitlines() if "model.test.overlap_threshold" in line)
    assert row[1] == "0.5"
    assert "inference.mode" not in said  # means the same unset
    assert "because they are set" not in run("inspect", "spec", "-e", spec).output


def test_spec_problems_are_told(spec: Path) -> None:
    result = run("inspect", "spec", "-e", spec, "train.num_epoch=7")
    assert result.exit_code == 1
    assert "did you mean train.num_epochs?" in result.output


@pytest.mark.slow
def test_the_published_model_has_its_parameters() -> None:
    config = OneFormerConfig()
    counts = parameter_counts(oneformer.shapes(config))
    # Swin-L at 224 pixels has 196,532,476: without its classifier and its last norm, with a norm for each of the four
    # outputs, and with tables of (2 x 12 - 1)^2 instead of (2 x 7 - 1)^2 relative positions in 564 heads.
    outputs = 2 * (192 + 384 + 768 + 1536)
    assert counts["backbone"] == 196_532_476 - (1536 + 1) * 1000 - 2 * 1536 + outputs + (23**2 - 13**2) * 564
    assert counts["all"] == sum(count for name, count in counts.items() if name != "all")


@pytest.mark.slow
def test_what_a_gpu_that_is_not_there_would_need_is_estimated(spec: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can compile for it."""

    def missing(*_: object) -> None:
        raise RuntimeError("no plugin")

    monkeypatch.setattr(cost, "described_h100s", missing)
    result = run("inspect", "model", "-e", spec, "--batch", 2, "--size", 64, 96, "--device", "h100")
    assert result.exit_code == 0, result.output
    words = " ".join(result.output.split())
    weights = round(4 * parameter_counts(oneformer.shapes(model_config(load_spec(spec))))["all"] / 2**20)
    assert f"parameters {weights} MiB" in words
    assert "GiB: fits a card of 16, 24, 40, 80 GB, of which 90% are used. An estimate: " in words


@pytest.mark.slow
def test_model_shows_parameters_operations_and_memory(spec: Path) -> None:
    result = run("inspect", "model", "-e", spec, "--batch", 2, "--size", 64, 96)
    assert result.exit_code == 0, result.output
    assert "2 x 64 x 96 pixels, precision 32" in result.output
    shapes = oneformer.shapes(model_config(load_spec(spec)))
    counts = parameter_counts(shapes)
    for name, count in counts.items():
        assert f"{name} {count / 1e6:.2f} M" in " ".join(result.output.split())
    inference, training = result.output.split("inference, one task: ")[1].split("training step: ")
    flops = [float(part.split(" GFLOP")[0]) for part in (inference, training)]
    assert 2 < flops[1] / flops[0] < 4  # a backward pass costs about twice the forward pass
    megabytes = {
        row[0]: float(row[-2].replace(",", "")) for row in map(str.split, training.splitlines()) if row[-1:] == ["MiB"]
    }
    weights = 4 * counts["all"] / 2**20
    assert megabytes["parameters"] == round(weights)
    assert megabytes["optimizer"] == round(2 * weights)
    rows = [value for name, value in megabytes.items() if name != "all"]
    assert megabytes["all"] == pytest.approx(sum(rows), abs=len(rows))  # of rounded numbers
    assert megabytes["all"] >= round(4 * weights) - 1  # at the update there are gradients besides


def test_a_picture_that_cannot_be_written_is_refused_before_anything_is_read(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text("not: read")
    result = CliRunner().invoke(app, ["inspect", "data", "--spec", str(tmp_path / "spec.yaml"), "--output", "x.txt"])
    assert result.exit_code == 1
    assert "x.txt: found .txt, expected a picture" in result.output
