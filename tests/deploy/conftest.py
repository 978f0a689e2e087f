"""TensorRT and CUDA as fakes, and a small exported model."""

import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx
import pytest
from fake_tensorrt import FakeCuda, FakeTensorRT
from PIL import Image
from small_graph import SIZE, small_model

from oneformer_jax.app.actions.model.gen_trt_engine import gen_trt_engine
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.screen import Screen
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings.deployment import engine_run


@pytest.fixture
def fakes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeCuda]:
    """`fakes(version, **gpu)`: from now on TensorRT of this version and this GPU are there."""

    def install(version: str = "10.16.1.11", **gpu: Any) -> FakeCuda:
        cuda = FakeCuda(**gpu)
        monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorRT(version))
        monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace(bindings=SimpleNamespace(runtime=cuda)))
        monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=cuda))
        return cuda

    install()
    return install


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    """An ONNX file of any batch size."""
    onnx.save(small_model(), tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of two images."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for index, colour in enumerate(("red", "blue")):
        Image.new("RGB", (SIZE + 8 * index, SIZE), colour).save(folder / f"{index}.png")
    return folder


@pytest.fixture
def build(fakes: Any, exported: Path, tmp_path: Path, spec_of: Any) -> Callable[..., Path]:
    """`build(*overrides)`: the engine that `gen_trt_engine` writes."""

    def built(*overrides: str) -> Path:
        spec = spec_of(f"gen_trt_engine.onnx_file={exported}", *overrides)
        folder = tmp_path / "gen_trt_engine"
        folder.mkdir(exist_ok=True)
        console = Screen(quiet=True)
        run = Run(folder, StatusFile(folder, "gen_trt_engine", console), console)
        return gen_trt_engine(engine_run(spec), run)

    return built
