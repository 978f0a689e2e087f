"""The fake of TensorRT against the real modules: both wheels of bindings, which `make install` puts into `.venv`.

The wheels hold the Python module without the libraries behind it. Empty libraries of those names are enough to import
it and to read every signature; nothing of TensorRT runs.
"""

import enum
import importlib.util
import inspect
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fake_tensorrt import CLASSES, FakeCuda, FakeTensorRT

WHEELS = Path(sys.prefix) / "tensorrt_bindings"

READER = r"""
import ctypes, inspect, json, subprocess, sys
from pathlib import Path

bindings, major, work = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
missing = [
    "createInferBuilder_INTERNAL", "createInferRefitter_INTERNAL", "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL", "createNvOnnxParser_INTERNAL", "getBuilderPluginRegistry",
    "getNvOnnxParserVersion", "getPluginRegistry", "initLibNvInferPlugins",
]
(work / "empty.c").write_text("".join(f"void *{name}(void) {{ return 0; }}\n" for name in missing))
for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
    library = f"lib{name}.so.{major}"
    command = ["cc", "-shared", "-fPIC", "-o", str(work / library), f"-Wl,-soname,{library}", str(work / "empty.c")]
    subprocess.run(command, check=True)
    ctypes.CDLL(str(work / library), mode=ctypes.RTLD_GLOBAL)
sys.path.insert(0, str(bindings))
import tensorrt_bindings

facts = {"__version__": tensorrt_bindings.__version__}
for name, kind in inspect.getmembers(tensorrt_bindings, inspect.isclass):
    members = {member: getattr(kind, member) for member in dir(kind)}
    facts[name] = {
        member: (value.__doc__ or "") if callable(value) else (int(value) if hasattr(value, "__int__") else "")
        for member, value in members.items()
    }
print(json.dumps(facts))
"""


@pytest.fixture(scope="module", params=["10", "11"])
def real(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The classes of one version: members with their documentation, enumerations with their values."""
    folder = WHEELS / request.param
    if not (folder / "tensorrt_bindings").is_dir():
        pytest.skip(f"no TensorRT bindings in {folder}: make install puts them there")
    if shutil.which("cc") is None:
        pytest.skip("no C compiler to make empty libraries with")
    command = [sys.executable, "-c", READER, str(folder), request.param, str(tmp_path_factory.mktemp("libraries"))]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    facts: dict[str, Any] = json.loads(result.stdout)
    assert facts["__version__"].startswith(f"{request.param}.")
    return facts


def accepts(documentation: str, name: str, parameters: list[str]) -> bool:
    """Whether an overload, as pybind11 documents it, can be called with these parameters alone."""
    for line in re.findall(rf"\b{name}\(self: ([^\n]*)\) -> ", documentation):
        _, *rest = re.split(r", (?=\w+: )", line)
        theirs = [part.partition(":")[0] for part in rest]
        optional = [" = " in part for part in rest]
        if theirs[: len(parameters)] == parameters and all(optional[len(parameters) :]):
            return True
    return False


OWN = ("built", "network", "samples_nearest", "Severity")  # what tests look at or set, and a class of its own


@pytest.mark.tao(28)
@pytest.mark.parametrize("fake", CLASSES, ids=lambda kind: kind.__name__)
def test_everything_that_the_fake_accepts_exists(real: dict[str, Any], fake: type) -> None:
    theirs = real[fake.__name__]
    if issubclass(fake, enum.IntEnum):
        assert {member.name for member in fake} <= theirs.keys()  # their numbers differ between the versions
        return
    names = [name for name in vars(fake) if not name.startswith("_") and name not in OWN]
    assert names or fake.__name__ in ("IHostMemory", "ILayer", "ITensor")
    for name in names:
        assert name in theirs, f"{fake.__name__}.{name}"
        if isinstance(vars(fake)[name], property):
            continue
        ours = list(inspect.signature(getattr(fake, name)).parameters)[1:]
        assert accepts(theirs[name], name, ours), f"{fake.__name__}.{name}: {theirs[name]}"


def test_attributes_of_the_fake_exist(real: dict[str, Any]) -> None:
    """Those that instances hold, which the classes do not show; and what the module offers."""
    assert {"name", "shape"} <= real["ITensor"].keys()
    assert "profiling_verbosity" in real["IBuilderConfig"]
    assert {name for name in vars(FakeTensorRT) if not name.startswith("_")} <= real.keys()
    assert accepts(real["Builder"]["__init__"], "__init__", ["logger"])
    assert accepts(real["OnnxParser"]["__init__"], "__init__", ["network", "logger"])
    assert accepts(real["Runtime"]["__init__"], "__init__", ["logger"])
    assert real["ILogger"]["Severity"] is not None


def test_what_version_11_removed_is_not_used(real: dict[str, Any]) -> None:
    """The names that one version has and the other has not: neither the fake nor our code knows them."""
    removed = ("FP16", "BF16", "INT8", "FP8", "OBEY_PRECISION_CONSTRAINTS", "PREFER_PRECISION_CONSTRAINTS")
    is_there = real["__version__"].startswith("10.")
    assert all((name in real["BuilderFlag"]) == is_there for name in removed)
    assert ("EXPLICIT_BATCH" in real["NetworkDefinitionCreationFlag"]) == is_there
    source = "".join(
        (Path(__file__).resolve().parents[2] / "oneformer_jax" / name).read_text()
        for name in ("deploy/tensorrt_build.py", "predict/tensorrt_engine.py")
    )
    assert not re.findall(rf"\.(?:{'|'.join(removed)}|EXPLICIT_BATCH|int8_calibrator)\b", source)


def test_the_fake_of_cuda_has_what_the_bindings_have() -> None:
    if importlib.util.find_spec("cuda") is None or importlib.util.find_spec("cuda.bindings") is None:
        pytest.skip("cuda-bindings is not installed")
    from cuda.bindings import runtime

    for name in vars(FakeCuda):
        if name.startswith("cuda"):
            assert hasattr(runtime, name), name
    for kind in FakeCuda.cudaMemcpyKind:
        assert int(getattr(runtime.cudaMemcpyKind, kind.name)) == kind
    assert {"name", "major", "minor"} <= set(dir(runtime.cudaDeviceProp))
