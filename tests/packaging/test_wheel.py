"""The wheel, installed with the distributions that its metadata names and no others, and run from another folder."""

import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import cv2
import pytest

import oneformer_jax

ROOT = Path(__file__).resolve().parents[2]
TINY = (
    "model.backbone.swin.embed_dim=8",
    "model.backbone.swin.depths=[1,1,1,1]",
    "model.backbone.swin.num_heads=[1,1,2,2]",
    "model.one_former.dec_layers=2",
    "train.num_epochs=1",
    "train.iters_per_epoch=4",
)


def test_the_wheel_holds_the_package_its_types_specs_and_vocabulary(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if not name.startswith("oneformer_jax-")}
    folders = {"oneformer_jax": "oneformer_jax", "converters": "converters", "configs": "oneformer_jax/configs"}
    assert held == {
        f"{inside}/{path.relative_to(ROOT / folder).as_posix()}"
        for folder, inside in folders.items()
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"oneformer_jax/py.typed", "oneformer_jax/data/clip/LICENSE"} <= held


@pytest.mark.slow
def test_the_base_describes_itself_and_names_the_extra_that_is_missing(environment: Callable, tmp_path: Path) -> None:
    base = environment()
    heavy = {"jax", "flax", "tensorflow-datasets", "opencv-python-headless", "pycocotools", "onnxruntime", "matplotlib"}
    assert not heavy & base.distributions.keys()

    def run(*arguments: object, code: int = 0, **options: str) -> str:
        result = base.run(*arguments, cwd=tmp_path, **options)
        assert result.returncode == code, result.stdout + result.stderr
        return result.stderr if code else result.stdout

    assert run("--version", GLIBC_TUNABLES="") == f"oneformer {oneformer_jax.__version__}\n"  # which starts it anew
    assert run("-m", "oneformer_jax", "--version", program="python") == f"oneformer {oneformer_jax.__version__}\n"
    assert "Draw a small data set" in run("--help")
    run("default_specs", "train", "-o", "spec.yaml")
    assert "train.num_gpus" in run("inspect", "spec", "--spec", "spec.yaml", "train.num_gpus=8")
    run("schema", "--output", "skill")
    for path in (tmp_path / "skill").rglob("*.json"):
        assert path.read_bytes() == (ROOT / "configs" / path.relative_to(tmp_path)).read_bytes()
    (tmp_path / "jobs").mkdir()
    assert "no jobs in" in run("job", "list", "--workspace", "jobs")

    hint = "-> pip install 'oneformer_jax[{}] @ file:///"
    (tmp_path / "model.onnx").touch()
    assert hint.format("train") in run("train", "--spec", "spec.yaml", "results_dir=results", code=1)
    assert hint.format("train") in run("quickstart", code=1)
    assert hint.format("export") in run("export", "-e", "spec.yaml", "results_dir=r", "export.checkpoint=x", code=1)
    assert hint.format("train") in run("-c", "from oneformer_jax import load_model", program="python", code=1)


@pytest.mark.prove
def test_training_evaluation_and_export_and_then_inference_without_jax(environment: Callable, tmp_path: Path) -> None:
    """Quickstart with few steps, a chain of jobs on its data, and the exported file where `deploy` alone is there."""
    complete = environment("export")

    def run(*arguments: object) -> str:
        result = complete.run(*arguments, cwd=tmp_path)
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    assert "nearest colour" in run("quickstart", *TINY)
    results = tmp_path / "runs" / "quickstart"
    assert json.loads((results / "evaluate" / "metrics.json").read_text())["num_images"] == 100

    spec = results / "train" / "experiment.yaml"
    run("job", "train", "--workspace", "jobs", "--spec", spec, "--automl-policy", "off")
    run("job", "evaluate", "--workspace", "jobs", "--parent", "train-1")
    run("job", "export", "--workspace", "jobs", "--parent", "train-1", "export_width=64", "export_height=64")
    assert run("job", "list", "--workspace", "jobs").count("SUCCESS") == 3
    model = tmp_path / "jobs" / "export-3" / "export" / "model.onnx"

    deployed = environment("deploy")
    assert "jax" not in deployed.distributions
    names = [f"inference.trt_engine={model}", f"inference.images_dir={results / 'data' / 'pictures'}"]
    (tmp_path / "deployed.yaml").write_text("results_dir: deployed\n")
    arguments = ["inference", "--spec", "deployed.yaml", *names, "inference.mode=panoptic"]
    result = deployed.run(*arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    pictures = os.listdir(results / "data" / "pictures")
    assert len(pictures) == 8
    for name in pictures:
        overlay = tmp_path / "deployed" / "inference" / "panoptic" / f"{Path(name).stem}.jpg"
        assert cv2.imread(str(overlay)) is not None
    missing = deployed.run("train", "--spec", "deployed.yaml", cwd=tmp_path)
    assert missing.returncode == 1
    assert "-> pip install 'oneformer_jax[train] @ file:///" in missing.stderr
