"""The convert action and pretrained weights: out to Hugging Face, back, and into another training."""

import json
import math
import shutil
from collections import OrderedDict
from pathlib import Path

import jax
import numpy as np
import pytest
import torch

from oneformer_jax import load_checkpoint, load_model
from oneformer_jax.app.actions.train.start import starting_point
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.training import training_run
from oneformer_jax.app.spec import load_spec
from oneformer_jax.checkpoints.read import find_checkpoint, load_description
from oneformer_jax.data.datasets.files import open_dataset
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.training.run import describe
from oneformer_jax.training.sharding import make_mesh

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def exported(trained: Path, command_line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trained model as a Hugging Face folder."""
    folder = tmp_path_factory.mktemp("exported") / "huggingface"
    result = command_line("convert", trained / "train", folder, "--to", "huggingface")
    assert result.returncode == 0, result.stderr
    return folder


def test_there_and_back_again(trained: Path, exported: Path, tmp_path: Path, command_line) -> None:
    report = tmp_path / "report.json"
    back = tmp_path / "back"
    result = command_line("convert", exported, back, "--report", report)
    assert result.returncode == 0, result.stderr
    assert "--label-map" not in result.stdout
    content = json.loads(report.read_text())
    assert not content["missing"]
    assert not content["unexpected"]

    before, after = load_model(trained / "train"), load_model(back)
    assert after.thresholds == Thresholds(0.8, 0.8, 150)  # Hugging Face's, not TAO's
    assert "thresholds: object_mask_threshold 0.8, overlap_threshold 0.8, test_topk_per_image 150" in result.stdout
    assert after.categories == before.categories
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    ours, theirs = before.predict(image, "panoptic"), after.predict(image, "panoptic")
    np.testing.assert_array_equal(ours.panoptic.ids, theirs.panoptic.ids)
    before, after = load_checkpoint(trained / "train"), load_checkpoint(back)
    for part in ("backbone", "pixel_decoder", "predictor", "task_mlp"):
        jax.tree.map(np.testing.assert_array_equal, before.params[part], after.params[part])


def test_a_label_map_comes_before_the_classes_of_the_folder(exported: Path, tmp_path: Path, command_line) -> None:
    label_map = tmp_path / "label_map.json"
    label_map.write_text(json.dumps([{"id": i, "name": f"mine {i}", "isthing": 0} for i in range(7)]))
    back = tmp_path / "back"
    result = command_line("convert", exported, back, "--label-map", label_map)
    assert result.returncode == 0, result.stderr
    categories = load_description(find_checkpoint(back)).categories
    assert categories.names == tuple(f"mine {i}" for i in range(7))
    assert not categories.is_thing.any()


def test_classes_of_the_folder_that_do_not_fit(exported: Path, tmp_path: Path, command_line) -> None:
    other = tmp_path / "other"
    shutil.copytree(exported, other)
    (other / "class_info.json").write_text(json.dumps({"0": {"name": "person", "isthing": 1}}))
    result = command_line("convert", other, tmp_path / "back")
    assert result.returncode == 1, result.stdout
    assert "1 categories, the weights have 7 classes" in result.stderr
    assert "--label-map" in result.stderr


@pytest.mark.tao(21)
def test_evaluate_needs_no_model_keys_and_tells_which_contradict(
    trained: Path, exported: Path, workspace: Path, tmp_path: Path, command_line
) -> None:
    back = tmp_path / "back"
    command_line("convert", exported, back, "--label-map", workspace / "data" / "label_map.json")
    lines = (workspace / "spec.yaml").read_text().splitlines()
    start, end = lines.index("model:"), lines.index("dataset:")
    bare = tmp_path / "bare.yaml"
    tasks = [
        "model:",
        "  one_former: {num_object_queries: 99, dec_layers: 5}",
        "  test: {semantic_on: true, panoptic_on: true}",
    ]
    bare.write_text("\n".join([*lines[:start], *tasks, *lines[end:]]))
    result = command_line("evaluate", "-e", bare, f"results_dir={tmp_path}", f"evaluate.checkpoint={back}")
    assert result.returncode == 0, result.stderr
    warnings = " ".join(result.stdout.split())
    assert "model.one_former.num_object_queries is 99 in the spec, 12 in the checkpoint" in warnings
    assert "model.one_former.dec_layers is 5 in the spec, 2 in the checkpoint" in warnings
    assert warnings.count("the checkpoint's architecture is used") == 1
    expected = command_line(
        "evaluate", "-e", workspace / "spec.yaml", f"results_dir={tmp_path / 'o'}", f"evaluate.checkpoint={trained}"
    )
    assert expected.returncode == 0, expected.stderr
    ours, theirs = (
        json.loads((folder / "evaluate" / "metrics.json").read_text()) for folder in (tmp_path, tmp_path / "o")
    )
    assert {name: ours[name] for name in ("mIoU", "PQ")} == {name: theirs[name] for name in ("mIoU", "PQ")}


def start_of(workspace: Path, *overrides: str):
    settings = training_run(load_spec(workspace / "spec.yaml", list(overrides)), workspace)
    dataset = open_dataset(settings.data)
    loop = settings.length.in_steps(dataset, 1)
    console = Screen(record=True, width=1000)
    run = Run(workspace, StatusFile(workspace, "train", console), console)
    return starting_point(settings, loop, describe(settings, loop, dataset), None, make_mesh(1), run), console


@pytest.mark.tao(7)
def test_a_training_starts_from_exactly_the_pretrained_parameters(
    exported: Path, trained: Path, workspace: Path
) -> None:
    start, _ = start_of(workspace, f"train.pretrained_model={exported}")
    model = load_checkpoint(trained / "train")
    state = start.state()
    assert int(state.step) == 0
    for part in ("backbone", "pixel_decoder", "predictor", "task_mlp"):
        jax.tree.map(np.testing.assert_array_equal, model.params[part], state.params[part])


@pytest.mark.tao(7)
def test_another_number_of_classes_starts_a_new_head(exported: Path, trained: Path, workspace: Path) -> None:
    start, console = start_of(workspace, f"train.pretrained_model={exported}", "model.sem_seg_head.num_classes=11")
    params = start.state().params
    assert params["predictor"]["class_embed"]["kernel"].shape == (64, 12)
    assert "newly initialised: 12 classes instead of 8" in console.export_text()  # no-object is one of them
    model = load_checkpoint(trained / "train")
    jax.tree.map(np.testing.assert_array_equal, model.params["backbone"], params["backbone"])


def test_a_backbone_of_another_window_is_interpolated(exported: Path, workspace: Path) -> None:
    keys = ["model.backbone.swin.window_size=5", "model.one_former.contrastive_temperature=0.25"]
    start, console = start_of(workspace, f"train.pretrained_backbone={exported}", *keys)
    params = start.state().params
    assert params["backbone"]["stage0_block0"]["attention"]["relative_position_bias"].shape == (81, 1)
    assert float(params["logit_scale"]) == pytest.approx(math.log(4))
    assert "bicubic, 7x7 to 9x9" in console.export_text()


@pytest.mark.tao(7)
@pytest.mark.prove  # `make test`: what it starts from, above
def test_a_pretrained_model_trains(exported: Path, workspace: Path, tmp_path: Path, command_line) -> None:
    result = command_line(
        *("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", "train.num_epochs=1"),
        f"train.pretrained_model={exported}",
    )
    assert result.returncode == 0, result.stderr
    assert "arrays matched" in result.stdout


@pytest.mark.parametrize(
    ("overrides", "culprit"),
    [
        (["train.pretrained_model=/nowhere/model.pth"], "/nowhere/model.pth"),
        (["train.pretrained_backbone=/nowhere/swin.pth"], "/nowhere/swin.pth"),
        (
            ["train.pretrained_model={exported}", "model.one_former.dim_feedforward=64"],
            "model.one_former.dim_feedforward",
        ),
        (["train.pretrained_model={exported}", "model.backbone.swin.depths=[1,1,2,1]"], "model.backbone.swin.depths"),
        (
            ["train.pretrained_backbone={exported}", "model.backbone.swin.embed_dim=16"],
            "model.backbone.swin.embed_dim 8, not 16",
        ),
    ],
)
def test_weights_that_do_not_fit(
    exported: Path, workspace: Path, tmp_path: Path, command_line, overrides: list[str], culprit: str
) -> None:
    overrides = [override.format(exported=exported) for override in overrides]
    result = command_line("train", "-e", workspace / "spec.yaml", f"results_dir={tmp_path}", *overrides)
    assert result.returncode == 1, result.stdout
    assert culprit in result.stderr
    assert "Traceback" not in result.stderr


def test_a_source_or_destination_that_cannot_be_used(exported: Path, tmp_path: Path, command_line) -> None:
    strange = tmp_path / "strange.pth"
    torch.save(OrderedDict(weight=torch.zeros(3)), strange)
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "file").write_text("kept")
    for source, destination, culprit in (
        (tmp_path / "absent.pth", tmp_path / "new", "absent.pth"),
        (strange, tmp_path / "new", "no known source"),
        (exported, taken, "exists already"),
    ):
        result = command_line("convert", source, destination)
        assert result.returncode == 1
        assert culprit in result.stderr
        assert "Traceback" not in result.stderr
    assert not (tmp_path / "new").exists()
    assert (taken / "file").read_text() == "kept"
