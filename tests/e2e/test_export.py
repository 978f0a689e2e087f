"""Export on the command line, and what the file then does without JAX: evaluation, inference, wrong uses of it."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from test_imports import BLOCKER

from converters.onnx.export import problems
from oneformer_jax import load_checkpoint, load_model
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import EngineError
from oneformer_jax.predict.metadata import metadata_of

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
SIZE = ("export.input_height=64", "export.input_width=96")


@pytest.fixture(scope="module")
def exported(workspace: Path, trained: Path, command_line) -> Path:
    """The trained model as a file of any batch size, its report beside it."""
    arguments = (f"export.checkpoint={trained / 'train'}", *SIZE, "export.verbose=true")
    result = command_line("export", "-e", workspace / "spec.yaml", *arguments)
    assert result.returncode == 0, result.stdout + result.stderr
    (trained / "export" / "output.txt").write_text(result.stdout)
    return trained / "export" / "model.onnx"


@pytest.fixture(scope="module")
def without_jax(workspace: Path):
    """Runs the command line in a process that cannot import JAX."""

    def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
        script = BLOCKER + "from oneformer_jax.app.cli.commands import app\napp()"
        options = {"cwd": ROOT, "capture_output": True, "text": True, "check": False, "timeout": 300}
        return subprocess.run([sys.executable, "-c", script, *map(str, arguments)], **options)

    return run


def test_a_trained_checkpoint_leaves_as_onnx_with_its_report(exported: Path) -> None:
    report = json.loads((exported.parent / "report.json").read_text())
    assert report["parity"]["passed"]
    assert report["parity"]["images"] == {"random": 4, "real": 3}
    assert min(report["parity"]["label_agreement"].values()) >= 0.999
    assert all(difference["within"] >= 0.999 for difference in report["parity"]["differences"].values())
    assert report["megabytes"] == pytest.approx(exported.stat().st_size / 1e6, abs=1e-3)
    told = (exported.parent / "output.txt").read_text()
    assert all(f"{count} {name}" in told for name, count in report["nodes"].items())  # verbose: all operators
    last = json.loads((exported.parent / "status.json").read_text().splitlines()[-1])
    assert last["status"] == "SUCCESS"
    assert last["kpi"]["label_agreement_real"] == report["parity"]["label_agreement"]["real"]


@pytest.mark.tao(21, 26)
def test_the_graph_is_standard_and_holds_what_running_it_needs(exported: Path, trained: Path) -> None:
    assert problems(exported) == []
    model = onnx.load(str(exported))
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 17)]
    used = Counter(node.op_type for node in model.graph.node)
    assert used["Floor"] == 2  # x and y, in one encoder layer
    assert "GridSample" not in used
    assert used["LayerNormalization"] > 0
    assert {"If", "Loop", "Scan", "Einsum", "Constant"}.isdisjoint(used)
    contents = [tensor.raw_data for tensor in model.graph.initializer if len(tensor.raw_data) > 64]
    assert len(contents) == len(set(contents))  # constants stand there once
    names = {node.name for node in model.graph.node}
    assert len(names) == len(model.graph.node)
    assert "backbone/stage0_block0/linear1/MatMul" in names
    metadata = metadata_of({entry.key: entry.value for entry in model.metadata_props}, where="")
    loaded = load_checkpoint(trained / "train")
    assert metadata.categories == loaded.categories
    assert (metadata.image_size, metadata.batch_size, metadata.task_pad_id) == ((64, 96), -1, 0)
    assert metadata.pixel_mean == tuple(loaded.description.pixel_mean)


@pytest.mark.tao(26)
@pytest.mark.parametrize("batch", [1, 2, 5])
def test_any_batch_gives_each_image_what_jax_gives_it(exported: Path, trained: Path, batch: int) -> None:
    model, rng = load_checkpoint(trained / "train"), np.random.default_rng(batch)
    images = rng.normal(size=(batch, 3, 64, 96)).astype(np.float32)
    tokens = task_tokens(model.config.task_pad_id, model.config.task_seq_len)[np.arange(batch) % 3].astype(np.float32)
    session = onnxruntime.InferenceSession(str(exported))
    class_logits, mask_logits = session.run(None, {"images": images, "task_tokens": tokens})
    # One image at a time, so that one shape is compiled.
    expected = [model.forward(images[i : i + 1].transpose(0, 2, 3, 1), tokens[i : i + 1]) for i in range(batch)]
    np.testing.assert_allclose(class_logits, np.concatenate([e.class_logits for e in expected]), atol=1e-4)
    np.testing.assert_allclose(mask_logits, np.concatenate([e.mask_logits for e in expected]), atol=1e-3)


def test_evaluation_of_the_file_needs_no_jax_and_scores_as_the_checkpoint(
    workspace: Path, trained: Path, exported: Path, command_line, without_jax, tmp_path: Path
) -> None:
    common = ("evaluate", "-e", workspace / "spec.yaml", "dataset.test.images=")
    engine = without_jax(*common, f"evaluate.trt_engine={exported}", f"evaluate.results_dir={tmp_path / 'onnx'}")
    assert engine.returncode == 0, engine.stdout + engine.stderr
    letterboxed = ("dataset.augmentation.test_geometry=letterbox", "dataset.image_size=[96,64]")
    checkpoint = (f"evaluate.checkpoint={trained / 'train'}", f"evaluate.results_dir={tmp_path / 'jax'}", *letterboxed)
    ours = command_line(*common, *checkpoint)
    assert ours.returncode == 0, ours.stderr
    theirs, found = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("jax", "onnx"))
    assert found["geometry"] == theirs["geometry"] == "letterbox 96x64"
    assert found.keys() == theirs.keys()
    for name in ("mIoU", "PQ", "AP", "pixel_accuracy"):
        assert found[name] == pytest.approx(theirs[name], abs=1e-3), name


@pytest.mark.parametrize("task", ["instance", "panoptic"])
def test_inference_with_the_file_needs_no_jax(
    workspace: Path, exported: Path, without_jax, tmp_path: Path, task: str
) -> None:
    arguments = (f"inference.trt_engine={exported}", f"inference.results_dir={tmp_path}", f"inference.mode={task}")
    result = without_jax("inference", "-e", workspace / "spec.yaml", *arguments, "inference.batch_size=2")
    assert result.returncode == 0, result.stdout + result.stderr
    images = sorted((workspace / "data" / "val" / "images").iterdir())  # three: the last batch is not full
    assert all((tmp_path / task / f"{path.stem}.jpg").is_file() for path in images)
    assert (tmp_path / task / f"{task}.json").is_file()


@pytest.mark.tao(27)
def test_a_file_that_is_there_is_overwritten_only_when_asked(
    workspace: Path, trained: Path, exported: Path, command_line, tmp_path: Path
) -> None:
    target = tmp_path / "mine.onnx"
    target.write_bytes(b"precious")
    common = ("export", "-e", workspace / "spec.yaml", f"export.checkpoint={trained / 'train'}", *SIZE)
    common = (*common, f"export.onnx_file={target}", f"export.results_dir={tmp_path}", "export.batch_size=2")
    refused = command_line(*common)
    assert refused.returncode == 1
    assert "exists already" in refused.stderr
    assert "export.overwrite=true" in refused.stderr
    assert target.read_bytes() == b"precious"
    result = command_line(*common, "export.overwrite=true")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir() if path.suffix != ".json") == [
        ".lock",
        "experiment.yaml",
        "mine.onnx",
    ]

    model = load_model(target)  # its batch is static: fewer images are filled up, more are refused
    images, sizes = np.zeros((3, 64, 96, 3), np.uint8), np.array([[64, 96]] * 3, np.int32)
    one = model.backend.predict(images[:1], sizes[:1], ["semantic"])["semantic"]
    assert len(one[0]) == len(one[1]) == 1
    dynamic = load_model(exported).backend.predict(images[:1], sizes[:1], ["semantic"])["semantic"]
    np.testing.assert_allclose(one[1], dynamic[1], atol=1e-3)
    with pytest.raises(EngineError, match="takes at most 2 images at once, not 3"):
        model.backend.predict(images, sizes, ["semantic"])
