"""ONNX files that TAO exported: they say nothing about themselves."""

import json
import logging
from pathlib import Path

import numpy as np
import onnx
import onnx.parser
import pytest
from PIL import Image
from small_graph import CLASSES, SIZE, small_model
from typer.testing import CliRunner

from oneformer_jax.app.cli.commands import app
from oneformer_jax.data import PIXEL_MEAN, PIXEL_STD
from oneformer_jax.data.drawn_shapes import draw_picture
from oneformer_jax.errors import EngineError
from oneformer_jax.predict.predictor import load_model
from oneformer_jax.predict.runs import Stated

PICTURE = draw_picture(SIZE, np.random.default_rng(0))[0]


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    model = small_model()
    del model.metadata_props[:]
    onnx.save(model, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def label_map(tmp_path: Path) -> str:
    classes = [{"id": k, "name": f"class {k}", "isthing": k % 2, "color": [k, k, k]} for k in range(1, CLASSES + 1)]
    (tmp_path / "label_map.json").write_text(json.dumps(classes))
    return str(tmp_path / "label_map.json")


def test_it_runs_with_the_classes_of_a_label_map_and_with_the_padding_of_tao(
    foreign: Path, label_map: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        model = load_model(foreign, stated=Stated(label_maps=(label_map,)))
    assert f"model.onnx: not exported by this project: its classes are those of {label_map}" in caplog.text
    assert model.categories.names[0] == "class 1"
    assert model.image_size == (SIZE, SIZE)
    # What TAO does, once more: ImageNet's statistics, and rows that end in end tokens.
    pixels = (PICTURE.astype(np.float32) - np.float32(PIXEL_MEAN)) / np.float32(PIXEL_STD)
    row = [49406, 518, 10549, 533, 1072, 24755, 49407]
    feeds = {
        "images": pixels.transpose(2, 0, 1)[None].astype(np.float32),
        "task_tokens": np.array([row + [49407] * (77 - len(row))], np.float32),
    }
    expected = model.backend.session.run(None, feeds)  # type: ignore[attr-defined]
    found = model.backend.predict(PICTURE[None], np.array([[SIZE, SIZE]]), ["panoptic"])["panoptic"]
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_what_is_stated_of_the_pixels_counts(foreign: Path, label_map: str) -> None:
    stated = Stated(label_maps=(label_map,), statistics=((1.0, 2.0, 3.0), (4.0, 5.0, 6.0)))
    assert load_model(foreign, stated=stated).statistics == stated.statistics


def test_who_names_no_label_map_is_told_to(foreign: Path) -> None:
    with pytest.raises(EngineError, match=r"not exported by this project: .*\n.*take from dataset.label_map"):
        load_model(foreign, stated=Stated())


def test_other_models_and_too_many_classes_are_refused(foreign: Path, label_map: str, tmp_path: Path) -> None:
    classes = [{"id": k, "name": str(k), "isthing": 1, "color": [k, k, k]} for k in range(1, CLASSES + 2)]
    (tmp_path / "more.json").write_text(json.dumps(classes))
    with pytest.raises(EngineError, match=f"label map has {CLASSES + 1} classes, but the model only {CLASSES}"):
        load_model(foreign, stated=Stated(label_maps=(str(tmp_path / "more.json"),)))
    onnx.save(
        onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["" : 17]> g (float[1,3,8,8] pixels) => (float[1,3,8,8] out) '
            "{ out = Relu (pixels) }"
        ),
        foreign,
    )
    with pytest.raises(EngineError, match="not a OneFormer that TAO exported: its inputs and outputs are pixels, out"):
        load_model(foreign, stated=Stated(label_maps=(label_map,)))


def test_inference_runs_it(foreign: Path, label_map: str, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    Image.fromarray(PICTURE).save(tmp_path / "photos" / "a.png")
    spec = tmp_path / "spec.yaml"
    spec.write_text(f"results_dir: {tmp_path}/results\ndataset: {{label_map: {label_map}}}\n")
    keys = [f"inference.trt_engine={foreign}", f"inference.images_dir={tmp_path / 'photos'}"]
    result = CliRunner().invoke(app, ["inference", "--spec", str(spec), *keys])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "results" / "inference" / "semantic" / "a.png").is_file()
