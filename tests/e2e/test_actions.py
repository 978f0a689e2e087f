"""The command line on real files: train, resume, evaluate, inference, and the library on what they wrote."""

import json
import shutil
from pathlib import Path

import cv2
import jax
import numpy as np
import pytest

from oneformer_jax import load_checkpoint, load_model
from oneformer_jax.app.spec import load_spec
from oneformer_jax.checkpoints.read import load_description
from oneformer_jax.data.datasets.images import read_image, read_panoptic
from oneformer_jax.data.task_text import task_tokens

pytestmark = pytest.mark.slow


def lines_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_training_leaves_checkpoints_links_curves_log_and_status(trained: Path) -> None:
    folder = trained / "train"
    assert list((folder / "profile").rglob("*.xplane.pb"))
    assert (folder / "best").resolve().parent == (folder / "checkpoints").resolve()
    assert (folder / "latest").resolve().name == "6"  # 10 images in batches of 4: 3 steps an epoch, 2 epochs
    assert (folder / "curves.png").stat().st_size > 1000
    assert list((folder / "tensorboard").glob("events*"))
    log = lines_of(folder / "log.jsonl")
    assert {record["kind"] for record in log} == {"train", "validation"}
    assert all(np.isfinite(record["loss"]) for record in log if record["kind"] == "train")
    assert load_spec(folder / "experiment.yaml").train.num_epochs == 2


def test_training_tells_its_progress_as_tao_does(trained: Path) -> None:
    lines = lines_of(trained / "train" / "status.json")
    # Another test starts the finished training again: the first run ends with the first SUCCESS.
    run = lines[: [line["status"] for line in lines].index("SUCCESS") + 1]
    told = [(line["status"], line["message"]) for line in run if line["verbosity"] != "WARNING"]
    epoch = [
        ("RUNNING", "Eval metrics generated."),
        ("RUNNING", "Training loop in progress"),
        ("RUNNING", "Train metrics generated."),
    ]
    assert told == [
        ("STARTED", "Starting OneFormer train."),
        ("STARTED", "Starting Training Loop."),
        *epoch,
        *epoch,
        ("RUNNING", "Training loop complete."),
        ("SUCCESS", "Train finished successfully."),
    ]
    progress = [line for line in run if "epoch" in line]
    counted = [[line[name] for name in ("epoch", "step", "max_epoch", "max_step")] for line in progress]
    assert counted == [[0, 3, 1, 6], [1, 6, 1, 6]]
    assert progress[-1]["eta"] == "0:00:00"
    scores = next(line["kpi"] for line in run if "mIoU" in line.get("kpi", {}))
    assert {"ACC_all", "PQ", "SQ", "RQ", "AP", "IoU_disk", "IoU_ground"} <= scores.keys()
    assert {"mIoU", "train_loss"} <= run[-1]["kpi"].keys()


@pytest.mark.tao(16)
def test_a_finished_training_says_so_and_changes_nothing(workspace: Path, trained: Path, command_line) -> None:
    before = (trained / "train" / "log.jsonl").read_text()
    result = command_line("train", "--spec", workspace / "spec.yaml")
    assert result.returncode == 0
    assert "already complete" in result.stdout
    last = lines_of(trained / "train" / "status.json")[-1]
    assert last["status"] == "SUCCESS"
    assert last["message"].startswith("already complete")
    assert "train.num_epochs" in last["message"]
    assert (trained / "train" / "log.jsonl").read_text() == before


@pytest.mark.tao(10)
def test_evaluate_scores_all_tasks_at_the_original_size(workspace: Path, trained: Path, command_line) -> None:
    """The checkpoint that the training of the spec left is found."""
    result = command_line("evaluate", "-e", workspace / "spec.yaml")
    assert result.returncode == 0, result.stderr
    assert f"{trained}/train/checkpoints/3 is used" in "".join(result.stdout.split("\n"))
    metrics = json.loads((trained / "evaluate" / "metrics.json").read_text())
    for name in ("mIoU", "pixel_accuracy", "PQ", "SQ", "RQ", "PQ_things", "PQ_stuff", "AP", "AP50", "AP75"):
        assert metrics[name] is None or 0 <= metrics[name] <= 1
    assert metrics["num_images"] == 3
    assert set(metrics["per_class"]) == {"disk", "square", "triangle", "cross", "ring", "ground", "band"}
    report = (trained / "evaluate" / "report.html").read_text()
    assert f"<em>{100 * metrics['PQ']:.1f}</em> PQ" in report
    assert report.count("<figure data-text=") == 3
    last = lines_of(trained / "evaluate" / "status.json")[-1]
    assert (last["status"], last["message"]) == ("SUCCESS", "Evaluate finished successfully.")
    assert last["kpi"]["test_mIoU"] == metrics["mIoU"]
    assert last["kpi"]["test_ACC_all"] == metrics["pixel_accuracy"]
    assert last["kpi"]["test_PQ"] == metrics["PQ"]
    assert last["kpi"]["IoU_ground"] == metrics["per_class"]["ground"]["IoU"]
    totals = next(line for line in result.stdout.splitlines() if "all" in line.split())
    shown = [cell.strip() for cell in totals.split("│")[2:-1]]
    assert shown == [f"{100 * metrics[name]:.1f}" for name in ("mIoU", "PQ", "SQ", "RQ", "AP")]


def test_evaluate_runs_only_the_tasks_that_are_on(workspace: Path, trained: Path, command_line, tmp_path: Path) -> None:
    result = command_line(
        "evaluate",
        "-e",
        workspace / "spec.yaml",
        f"evaluate.checkpoint={trained / 'train' / 'latest'}",
        f"evaluate.results_dir={tmp_path}",
        "evaluate.task=panoptic",
        "evaluate.iou_per_class=false",
    )
    assert result.returncode == 0, result.stderr
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert "PQ" in metrics
    assert {"mIoU", "AP", "per_class"}.isdisjoint(metrics)


@pytest.mark.tao(19)
@pytest.mark.parametrize("task", ["semantic", "instance", "panoptic"])
def test_inference_writes_pictures_and_raw_results(workspace: Path, trained: Path, command_line, task: str) -> None:
    folder = trained / f"inference_{task}"
    result = command_line(
        "inference",
        "-e",
        workspace / "spec.yaml",
        f"inference.checkpoint={trained / 'train'}",
        f"inference.results_dir={folder}",
        f"inference.mode={task}",
    )
    assert result.returncode == 0, result.stderr
    images = sorted((workspace / "data" / "val" / "images").iterdir())
    for path in images:
        assert cv2.imread(str(folder / task / f"{path.stem}.jpg")) is not None
    if task == "semantic":
        classes = cv2.imread(str(folder / "semantic" / f"{images[0].stem}.png"), cv2.IMREAD_UNCHANGED)
        assert classes.shape == (64, 64)
        assert classes.max() < 7
    elif task == "panoptic":
        content = json.loads((folder / "panoptic" / "panoptic.json").read_text())
        for annotation in content["annotations"]:
            ids = read_panoptic(folder / "panoptic" / annotation["file_name"])
            assert set(np.unique(ids)) - {0} == {segment["id"] for segment in annotation["segments_info"]}
    else:
        assert isinstance(json.loads((folder / "instance" / "instance.json").read_text()), list)


def test_a_loaded_model_predicts_like_its_parts(workspace: Path, trained: Path) -> None:
    model = load_model(trained / "train")
    assert model.categories.names[0] == "disk"
    image = read_image(next((workspace / "data" / "val" / "images").iterdir()))
    result = model.predict(image)
    assert result.semantic.shape == image.shape[:2]
    assert set(np.unique(result.panoptic.ids)) - {0} == {segment.id for segment in result.panoptic.segments}
    alone = model.predict(image, "panoptic")
    assert alone.semantic is alone.instance is None
    np.testing.assert_array_equal(alone.panoptic.ids, result.panoptic.ids)
    with pytest.raises(ValueError, match="task must be one of"):
        model.predict(image, "depth")

    checkpoint = load_checkpoint(trained / "train")
    mean, std = (np.array(x, np.float32) for x in (checkpoint.description.pixel_mean, checkpoint.description.pixel_std))
    normalised = ((image.astype(np.float32) - mean) / std)[None]
    predictions = checkpoint.forward(normalised, task_tokens(0, 77)[:1])
    assert predictions.class_logits.shape == (1, 12, 8)
    assert predictions.mask_logits.shape == (1, 12, 16, 16)
    logits = model.backend.predict(image[None], np.array([[64, 64]], np.int32), ["semantic"])["semantic"]
    np.testing.assert_allclose(predictions.class_logits, logits[0], atol=1e-4)
    np.testing.assert_allclose(predictions.mask_logits, logits[1], atol=1e-3)

    halves = load_model(trained / "train", precision="bf16-mixed").backend
    rounded = halves.predict(image[None], np.array([[64, 64]], np.int32), ["semantic"])["semantic"]
    for half, whole in zip(rounded, logits, strict=True):
        assert half.dtype == np.float32
        error = np.sqrt(np.mean((half - whole) ** 2) / np.mean(whole**2))
        assert 1e-4 < error < 0.1


@pytest.mark.prove  # tests/training/test_resumed_runs.py shows the counts in `make test`
def test_another_batch_size_goes_on_after_as_many_images(
    workspace: Path, trained: Path, command_line, tmp_path: Path
) -> None:
    """Two epochs of 10 images in fours, three updates each; then until four are over in twos, five updates each."""
    shutil.copytree(trained / "train", tmp_path / "train", symlinks=True)
    before = load_description((tmp_path / "train" / "latest").resolve())
    assert (before.step, before.training.images, before.training.epochs) == (6, 24, 2)
    keys = ("dataset.train.batch_size=2", "train.num_epochs=4", f"results_dir={tmp_path}")
    result = command_line("train", "--spec", workspace / "spec.yaml", *keys)
    assert result.returncode == 0, result.stderr
    assert "already complete" not in result.stdout
    assert "images of a step: 4 before, 2 now" in " ".join(result.stdout.split())
    after = load_description((tmp_path / "train" / "latest").resolve())
    assert (after.step, after.training.images, after.training.epochs) == (6 + 10, 24 + 20, 4)
    steps = [line["step"] for line in lines_of(tmp_path / "train" / "log.jsonl") if line["kind"] == "train"]
    assert steps == list(range(1, 17))
    again = command_line("train", "--spec", workspace / "spec.yaml", *keys)
    assert "already complete" in again.stdout


@pytest.mark.prove  # test_kills.py shows in `make test` that a run goes on as one that was not interrupted
def test_training_resumes_where_it_stopped(workspace: Path, command_line, tmp_path: Path) -> None:
    """Two epochs in one go equal one, and then the second from the checkpoint."""
    # A schedule that does not depend on the number of epochs.
    common = [
        "train",
        "-e",
        workspace / "spec.yaml",
        "train.validation_interval=100",
        "train.optim.lr_scheduler=MultiStep",
    ]
    once = command_line(*common, f"results_dir={tmp_path / 'once'}", "train.num_epochs=2")
    first = command_line(*common, f"results_dir={tmp_path / 'twice'}", "train.num_epochs=1")
    second = command_line(*common, f"results_dir={tmp_path / 'twice'}", "train.num_epochs=2")
    for result in (once, first, second):
        assert result.returncode == 0, result.stderr
    assert "resuming from step 3" in second.stdout
    ours, theirs = (load_checkpoint(tmp_path / name / "train" / "latest").params for name in ("once", "twice"))
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    steps = [record["step"] for record in lines_of(tmp_path / "twice" / "train" / "log.jsonl")]
    assert steps == sorted(steps)
