"""TensorRT engines at work, with their buffers on the GPU.

The extra `tensorrt` installs TensorRT, from NVIDIA's own package index, and the CUDA bindings.
"""

import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from oneformer_jax.errors import EngineError, install_hint
from oneformer_jax.evaluation.backend import BatchLogits
from oneformer_jax.predict.exported import ExportedBackend, check_shapes, refuse_results
from oneformer_jax.predict.metadata import INPUTS, OUTPUTS, read_sidecar

DTYPES: dict[str, np.dtype] = {
    "FLOAT": np.dtype(np.float32),
    "INT32": np.dtype(np.int32),
    "UINT8": np.dtype(np.uint8),
    "BOOL": np.dtype(bool),
}
"""Of inputs and outputs, by TensorRT's names."""
BUILD_AGAIN = "engines run where they were built: build it here with gen_trt_engine"


def tensorrt() -> Any:
    """The module, of version 10 or 11. Raises EngineError."""
    try:
        import tensorrt as module
    except ImportError as error:
        raise EngineError(
            f"TensorRT is not installed, or cannot be loaded: {error}", hint=install_hint("tensorrt")
        ) from error
    if module.__version__.partition(".")[0] not in ("10", "11"):
        raise EngineError(f"TensorRT {module.__version__} is not supported", hint="install version 10 or 11")
    return module


def reports(module: Any, *, verbose: bool = False) -> Any:
    """A TensorRT logger that keeps errors in its list `errors`, and prints: all, or nothing below a warning."""
    Severity = module.ILogger.Severity
    shown = Severity.VERBOSE if verbose else Severity.WARNING

    class Reports(module.ILogger):
        def __init__(self) -> None:
            module.ILogger.__init__(self)
            self.errors: list[str] = []

        def log(self, severity: Any, msg: str) -> None:
            if int(severity) <= int(Severity.ERROR):
                self.errors.append(msg)
            if int(severity) <= int(shown):
                print(f"TensorRT: {msg}", flush=True)

    return Reports()


class CudaDevice:
    """One GPU with a stream of its own. Addresses are plain integers.

    Raises EngineError: no CUDA bindings, no driver, or no GPU of this index.
    """

    def __init__(self, index: int = 0) -> None:
        try:
            from cuda.bindings import runtime
        except ImportError as error:
            raise EngineError("the CUDA bindings are not installed", hint=install_hint("tensorrt")) from error
        self._cuda: Any = runtime
        (count,) = self._call("cudaGetDeviceCount")
        if index >= count:
            hint = "choose another one: gen_trt_engine.gpu_id, evaluate.gpu_ids or inference.gpu_ids"
            raise EngineError(f"there is no GPU {index}, only {count}", hint=hint)
        self._call("cudaSetDevice", index)
        (properties,) = self._call("cudaGetDeviceProperties", index)
        name = properties.name
        self.name = (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0")
        self.capability = f"{properties.major}.{properties.minor}"
        (self.stream,) = self._call("cudaStreamCreate")

    def allocate(self, size: int) -> int:
        """Memory of `size` bytes, which is returned when nobody holds this object any more."""
        (address,) = self._call("cudaMalloc", size)
        weakref.finalize(self, self._cuda.cudaFree, address).atexit = False  # the driver may have gone by then
        return int(address)

    def upload(self, array: np.ndarray, address: int) -> None:
        """Starts to copy an array to the device; it must stay as it is until `wait` returned."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self.stream)

    def download(self, address: int, array: np.ndarray) -> None:
        """Starts to copy from the device into an array; it holds the values when `wait` returned."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self.stream)

    def wait(self) -> None:
        """Returns when all that was started is done. Raises EngineError where something of it failed."""
        self._call("cudaStreamSynchronize", self.stream)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        error, *results = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            raise EngineError(f"CUDA: {name}: {getattr(error, 'name', error)}")
        return tuple(results)


class TensorRTEngine:
    """An engine that `gen_trt_engine` built, with the JSON file beside it, on one GPU.

    `batch_sizes` are the smallest and the largest of its profile, `shapes` those of inputs and outputs. Raises
    EngineError: files missing or damaged, an engine of another TensorRT version, another GPU or another source.
    """

    def __init__(self, path: Path | str, *, device_id: int = 0) -> None:
        path = Path(path)
        self.where = str(path)
        if not path.is_file():
            raise EngineError("no such file", where=self.where, hint="oneformer gen_trt_engine writes one")
        self.metadata, facts = read_sidecar(path)
        trt = tensorrt()
        self._device = CudaDevice(device_id)
        _check_origin(facts, trt.__version__, self._device, self.where)
        logger = reports(trt)
        self._runtime = trt.Runtime(logger)  # engines need it as long as they live
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        if self._engine is None:
            told = f": {logger.errors[-1][:300]}" if logger.errors else ""
            raise EngineError(f"TensorRT cannot load it{told}", where=self.where, hint=BUILD_AGAIN)
        self._context = self._engine.create_execution_context()
        if self._context is None:
            raise EngineError("the GPU has not enough free memory for it", where=self.where)
        found = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        expected = self.metadata.inputs + self.metadata.outputs
        if set(found) != set(expected):
            raise EngineError(f"its inputs and outputs are {found}, not {[*expected]}", where=self.where)
        smallest, _, largest = (next(iter(shape)) for shape in self._engine.get_tensor_profile_shape(INPUTS[0], 0))
        self.batch_sizes = int(smallest), int(largest)
        self.provider = f"TensorRT {trt.__version__} on {self._device.name}"
        self._dtypes = {name: DTYPES[self._engine.get_tensor_dtype(name).name] for name in expected}
        self.shapes = {name: tuple(self._engine.get_tensor_shape(name)) for name in expected}
        self._buffers = {}
        for name, dtype in self._dtypes.items():  # as large as the largest batch needs
            _, *rest = self.shapes[name]
            self._buffers[name] = self._device.allocate(dtype.itemsize * int(largest) * int(np.prod(rest)))

    def run(self, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The outputs by their names, of inputs by theirs. Raises EngineError: TensorRT failed."""
        device, context = self._device, self._context
        inputs = {name: np.ascontiguousarray(feeds[name], self._dtypes[name]) for name in self.metadata.inputs}
        for name, array in inputs.items():
            if not context.set_input_shape(name, array.shape):
                raise EngineError(f"takes no {name} of shape {array.shape}", where=self.where)
            device.upload(array, self._buffers[name])
        outputs = {
            name: np.empty(tuple(context.get_tensor_shape(name)), self._dtypes[name]) for name in self.metadata.outputs
        }
        for name, address in self._buffers.items():
            context.set_tensor_address(name, address)
        if not context.execute_async_v3(int(device.stream)):
            raise EngineError("TensorRT could not run it", where=self.where)
        for name, array in outputs.items():
            device.download(self._buffers[name], array)
        device.wait()
        return outputs


class TensorRTBackend(ExportedBackend):
    """An engine whose outputs are logits. Raises EngineError: it post-processes."""

    def __init__(self, engine: TensorRTEngine) -> None:
        self._engine = engine
        self.where, self.metadata, self.batch_sizes = engine.where, engine.metadata, engine.batch_sizes
        self.provider = engine.provider
        refuse_results(self.metadata, self.where)
        check_shapes(self.metadata, engine.shapes, self.where)

    def run(self, images: Float32[np.ndarray, "b 3 h w"], task_tokens: Float32[np.ndarray, "b n"]) -> BatchLogits:
        """Class logits (B, Q, K + 1) and mask logits (B, Q, h, w). Raises EngineError: TensorRT failed."""
        found = self._engine.run(dict(zip(INPUTS, (images, task_tokens), strict=True)))
        class_logits, mask_logits = (found[name] for name in OUTPUTS)
        return class_logits, mask_logits


def engine_facts(version: str, device: CudaDevice) -> dict[str, str]:
    """What the file beside an engine says about where it was built."""
    return {"tensorrt": version, "gpu": device.name, "compute_capability": device.capability}


def _check_origin(facts: Mapping[str, Any], version: str, device: CudaDevice, where: str) -> None:
    for name, here in engine_facts(version, device).items():
        if facts.get(name) != here:
            what = {"tensorrt": "TensorRT", "gpu": "GPU", "compute_capability": "compute capability"}[name]
            raise EngineError(f"built for {what} {facts.get(name)}, but this is {here}", where=where, hint=BUILD_AGAIN)
