"""Model repositories for Triton: parsed with its own protobuf, and served to the client that lies beside the model."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from small_graph import CLASSES, QUERIES, SIZE, metadata, small_results_model
from triton_server import configuration, serving

from oneformer_jax.data.datasets.categories import Categories, Category
from oneformer_jax.deploy.triton import served_batches, write_repository
from oneformer_jax.errors import EngineError, OneFormerError, SpecError
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.predict.parity import painted
from oneformer_jax.tasks import TASKS, Task

Build = Callable[..., Path]
KEYS = "gen_trt_engine"


def repository(folder: Path, kind: Task, batch: int = -1) -> tuple[Path, Metadata]:
    """One with the small model, whose ONNX file lies beside it."""
    about = replace(metadata(batch), postprocess=kind)
    onnx.save(small_results_model(kind, batch), folder / "model.onnx")
    return write_repository(folder / "models", folder / "model.onnx", about, served_batches(about), ""), about


@pytest.mark.parametrize(("kind", "batch"), [("semantic", -1), ("panoptic", 1), ("instance", 2)])
def test_the_client_gets_what_the_model_returns(tmp_path: Path, kind: Task, batch: int) -> None:
    """Of a picture that is half as high as wide: what is below it does not come back."""
    folder, about = repository(tmp_path, kind, batch)
    pixels = np.random.default_rng(0).integers(0, 256, (SIZE // 2, SIZE, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    with serving(tmp_path / "models") as address:
        done = subprocess.run(
            [sys.executable, folder / "client.py", folder.name, "picture.png", "result.png", address],
            cwd=tmp_path,
            env=os.environ | {"PYTHONWARNINGS": "error"},
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stderr
    canvas = np.empty((max(batch, 1), SIZE, SIZE, 3), np.uint8)
    canvas[:] = about.pixel_mean
    canvas[:, : SIZE // 2] = pixels
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    outputs = dict(zip(about.outputs, session.run(list(about.outputs), {"images": canvas}), strict=True))
    if kind == "instance":
        outputs["scores"] = outputs["scores"] * (outputs["scores"] > about.thresholds.object_mask_threshold)
    expected = painted(kind, outputs)[0, : SIZE // 2] - 1
    found = np.asarray(Image.open(tmp_path / "result.png")).astype(int)
    np.testing.assert_array_equal(np.where(found == 255, -1, found), expected)
    shares = {line.split(maxsplit=1)[1]: float(line.split("%")[0]) for line in done.stdout.splitlines()}
    names = [*about.categories.names, "nothing"]
    assert shares.keys() == {names[label] for label in np.unique(expected)}
    assert sum(shares.values()) == pytest.approx(100, abs=0.1 * len(shares))


def test_several_kinds_of_results_share_a_repository(tmp_path: Path) -> None:
    for kind in TASKS:
        repository(tmp_path, kind)
    folders = sorted((tmp_path / "models").iterdir())
    assert [folder.name for folder in folders] == [f"oneformer_{kind}" for kind in sorted(TASKS)]
    for folder in folders:
        found = configuration(folder)
        assert (found.name, found.backend, found.max_batch_size) == (folder.name, "onnxruntime", 8)
        assert found.dynamic_batching.max_queue_delay_microseconds > 0
        assert [list(tensor.dims) for tensor in found.input] == [[SIZE, SIZE, 3]]
        assert (folder / "labels.txt").read_text() == "".join(f"class {index}\n" for index in range(CLASSES))
        assert f"python {folder.name}/client.py {folder.name} photo.jpg" in (folder / "README.md").read_text()
        assert sorted(path.name for path in folder.iterdir()) == [
            "1",
            "README.md",
            "client.py",
            "config.pbtxt",
            "labels.txt",
        ]
    pairs = QUERIES * CLASSES  # fewer than test_topk_per_image
    for folder, expected in zip(
        folders,
        (
            {"labels": [pairs], "scores": [pairs], "masks": [pairs, SIZE, SIZE]},
            {"segment_ids": [SIZE, SIZE], "labels": [QUERIES], "scores": [QUERIES]},
            {"classes": [SIZE, SIZE]},
        ),
        strict=True,
    ):
        assert {tensor.name: list(tensor.dims) for tensor in configuration(folder).output} == expected


def test_names_of_classes_survive_the_configuration(tmp_path: Path) -> None:
    names = ['a "quoted" \\ name', "größer\nals", "猫"]
    categories = Categories(tuple(Category(i + 1, name, True, (0, 0, 0)) for i, name in enumerate(names)))
    about = replace(metadata(), postprocess="semantic", categories=categories)
    (tmp_path / "model.onnx").write_bytes(b"a graph")
    (tmp_path / "model.onnx.data").write_bytes(b"its weights")
    folder = write_repository(tmp_path / "models", tmp_path / "model.onnx", about, (1, 8), "")
    text = configuration(folder).parameters["oneformer_jax"].string_value
    assert Metadata.from_json(json.loads(text), where="").categories.names == tuple(names)
    assert len((folder / "labels.txt").read_text().splitlines()) == 3
    assert (folder / "1" / "model.onnx.data").read_bytes() == b"its weights"


def test_an_engine_gets_a_repository_with_its_own_batches(build: Build, exported: Path, tmp_path: Path) -> None:
    models = f"{KEYS}.triton_dir={tmp_path / 'models'}"
    with pytest.raises(SpecError, match=r"triton_dir: .* returns results\n  -> export with .*include_postprocess"):
        build(models)
    onnx.save(small_results_model("panoptic"), exported)
    with pytest.raises(SpecError, match="a server cannot wait for 2 requests"):
        build(models, f"{KEYS}.tensorrt.min_batch_size=2", f"{KEYS}.tensorrt.max_batch_size=4")
    engine = build(models, f"{KEYS}.tensorrt.max_batch_size=4")
    folder = tmp_path / "models" / "oneformer_panoptic"
    found = configuration(folder)
    assert (found.backend, found.max_batch_size, found.default_model_filename) == ("tensorrt", 4, "model.engine")
    assert (folder / "1" / "model.engine").read_bytes() == engine.read_bytes()
    assert "a release with TensorRT 10.16.1.11, and a GPU A." in (folder / "README.md").read_text()
    with pytest.raises(EngineError, match="oneformer_panoptic: exists already"):
        build(models, f"{KEYS}.tensorrt.max_batch_size=4", f"{KEYS}.verify_only=true")
    engine.unlink()
    with pytest.raises(EngineError, match=r"oneformer_panoptic: exists already\n  -> set .*\.overwrite=true"):
        build(models)
    build(models, f"{KEYS}.overwrite=true", f"{KEYS}.batch_size=2")
    found = configuration(folder)
    assert found.max_batch_size == 0
    assert not found.HasField("dynamic_batching")
    assert list(found.input[0].dims) == [2, SIZE, SIZE, 3]


def test_a_disk_that_is_full_leaves_the_repository_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, about = repository(tmp_path, "semantic")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(OneFormerError, match="No space left on device"):
        write_repository(tmp_path / "models", tmp_path / "model.onnx", about, (1, 8), "")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
