"""What `quantize` takes, refuses and leaves behind."""

import json
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from small_graph import small_model

from oneformer_jax.app.actions.model.quantize import quantize
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.deployment import quantization_run
from oneformer_jax.app.spec import Spec
from oneformer_jax.errors import DataError, EngineError, OneFormerError, SpecError

QUIET = Screen(quiet=True)


def test_models_that_the_backend_does_not_take_are_refused(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    for model, backend, hint in (("a.onnx", "torchao", "modelopt.onnx"), ("a", "modelopt.onnx", "torchao")):
        spec = spec_of(f"quantize.model_path={model}", f"quantize.backend={backend}")
        with pytest.raises(SpecError, match=rf"quantize.backend: {backend} quantizes .*\n  -> set it to {hint}"):
            quantization_run(spec)


def test_a_result_is_replaced_only_when_asked(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "model.onnx")
    keys = [f"quantize.model_path={tmp_path / 'model.onnx'}", "quantize.backend=modelopt.onnx"]
    run = Run(tmp_path, StatusFile(tmp_path, "quantize", QUIET), QUIET)
    quantize(quantization_run(spec_of(*keys)), run)
    first = (tmp_path / "quantized_model.onnx").read_bytes()
    with pytest.raises(EngineError, match=r"exists already\n  -> set quantize.overwrite=true"):
        quantize(quantization_run(spec_of(*keys)), run)
    only = "quantize.layers=[{module_name: Conv}]"
    quantize(quantization_run(spec_of(*keys, only, "quantize.overwrite=true")), run)
    assert (tmp_path / "quantized_model.onnx").read_bytes() != first
    assert not list(tmp_path.glob(".*"))


def test_a_result_that_could_not_be_measured_is_not_there_already(
    spec_of: Callable[..., Spec], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx.save(small_model(), tmp_path / "model.onnx")
    settings = quantization_run(
        spec_of(f"quantize.model_path={tmp_path / 'model.onnx'}", "quantize.backend=modelopt.onnx")
    )
    run = Run(tmp_path, StatusFile(tmp_path, "quantize", QUIET), QUIET)

    def fails(*_: object, **__: object) -> None:
        raise DataError("a picture is damaged")

    with monkeypatch.context() as patched:
        patched.setattr("oneformer_jax.app.actions.model.quantize.measure", fails)
        with pytest.raises(DataError, match="damaged"):
            quantize(settings, run)
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & {"quantized_model.onnx", "quantization.json"}
    assert quantize(settings, run) == tmp_path / "quantized_model.onnx"
    assert json.loads((tmp_path / "quantization.json").read_text())["after"]["path"] == str(
        tmp_path / "quantized_model.onnx"
    )


@pytest.mark.tao(29)
def test_what_cannot_be_quantized_leaves_no_file(spec_of: Callable[..., Spec], tmp_path: Path) -> None:
    onnx.save(small_model(), tmp_path / "model.onnx")
    (tmp_path / "empty").mkdir()
    run = Run(tmp_path, StatusFile(tmp_path, "quantize", QUIET), QUIET)
    keys = [f"quantize.model_path={tmp_path / 'model.onnx'}", "quantize.backend=modelopt.onnx"]
    images = f"dataset.quant_calibration_dataset.images_dir={tmp_path / 'empty'}"
    for overrides, message in (
        (["quantize.layers=[{module_name: nothing}]"], "'nothing' names none of the 8 layers"),
        (["quantize.mode=static_ptq"], "no value for dataset.quant_calibration_dataset.images_dir"),
        (["quantize.mode=static_ptq", images], "the folder contains no images"),
        (["quantize.model_path=absent.onnx"], "no such file"),
        (["quantize.model_path=absent", "quantize.backend=torchao"], "no such file or folder"),
    ):
        with pytest.raises(OneFormerError, match=message):
            quantize(quantization_run(spec_of(*keys, *overrides)), run)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty", "model.onnx", "spec.yaml"]
