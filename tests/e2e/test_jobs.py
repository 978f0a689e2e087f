"""Actions chained as jobs: each finds its data in archives on an S3 server and its model by `--parent` alone."""

import json
import shutil
from pathlib import Path

import cv2
import pytest
from servers import Bucket
from tiers import tier

from oneformer_jax.app.jobs.run import state
from oneformer_jax.app.jobs.workspace import Workspace

pytestmark = pytest.mark.slow

TRIALS = 3 if tier() == "prove" else 1  # of the search


def store(data: Path, bucket: Bucket, folder: Path) -> None:
    """The training set as files below an address, the validation set as one archive."""
    for split in ("train", "val"):
        root = folder / split / "set"
        shutil.make_archive(str(root / "images"), "gztar", data / split / "images")
        shutil.make_archive(str(root / "images_panoptic"), "gztar", data / split, "panoptic")
        shutil.copy(data / split / "annotations.json", root)
        for name in ("label_map.json", "label_map_panoptic.json"):
            shutil.copy(data / "label_map.json", root / name)
    for path in (folder / "train" / "set").iterdir():
        bucket.put(f"train/{path.name}", path.read_bytes())
    bucket.put("val.tar.gz", Path(shutil.make_archive(str(folder / "val"), "gztar", folder / "val")).read_bytes())


@pytest.mark.again
def test_a_chain_of_jobs(workspace: Path, tmp_path: Path, s3: Bucket, command_line) -> None:
    """Training through AutoML, evaluation, export, quantization (in `make prove`), inference."""
    store(workspace / "data", s3, tmp_path / "roots")
    jobs = Workspace(tmp_path / "jobs")

    def run(action: str, *arguments: object) -> str:
        result = command_line("job", action, "--workspace", jobs.folder, *map(str, arguments))
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    data = ["--train-dataset", f"{s3.address}/train", "--eval-dataset", f"{s3.address}/val.tar.gz"]
    search = ["num_epochs=1", f"automl.max_recommendations={TRIALS}"]
    told = run("train", *data, "--spec", workspace / "spec.yaml", *search)
    assert "AutoML (policy auto)" in told
    training = jobs.job("train-1")
    assert training.read().inputs["dataset.train.images"] == f"{s3.address}/train/images.tar.gz"
    assert run("logs", "train-1") in told
    study = json.loads((training.folder / "automl" / "results.json").read_text())
    assert [trial["state"] for trial in study["trials"]] == ["complete"] * TRIALS

    run("evaluate", "--parent", "train-1")
    evaluation = state(jobs.job("evaluate-2"))
    metrics = json.loads((jobs.folder / "evaluate-2" / "evaluate" / "metrics.json").read_text())
    assert metrics["num_images"] == 3
    assert evaluation.kpi["test_mIoU"] == metrics["mIoU"] == pytest.approx(study["best"]["score"], abs=1e-3)

    run("export", "--parent", "evaluate-2", "export_width=64", "export_height=64")
    ancestors, graph = ["train-1", "evaluate-2", "export-3"], "export-3/export/model.onnx"
    if tier() == "prove":
        run("quantize", "--parent", "export-3")
        ancestors, graph = [*ancestors, "quantize-4"], "quantize-4/quantize/quantized_model.onnx"
    run("inference", "--parent", ancestors[-1], "inference_mode=panoptic")
    last = jobs.jobs()[-1]
    pictures = state(last)
    assert pictures.lineage == ancestors
    assert pictures.values["inference.trt_engine"].endswith(graph)
    for path in (workspace / "data" / "val" / "images").iterdir():
        assert cv2.imread(str(last.folder / "inference" / "panoptic" / f"{path.stem}.jpg")) is not None
    rows = [line for line in run("list").splitlines() if "SUCCESS" in line]
    assert len(rows) == len(jobs.jobs()) == len(ancestors) + 1
