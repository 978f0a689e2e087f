"""What engines need of a CUDA device: its identity, memory, copies and a stream. Extra `tensorrt` (cuda-bindings)."""

from typing import Any

import numpy as np

from oneformer_jax.errors import EngineError
from oneformer_jax.extras import install_hint


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
        self.index = index
        (count,) = self._call("cudaGetDeviceCount")
        if index >= count:
            hint = "choose another one: gen_trt_engine.gpu_id, evaluate.gpu_ids or inference.gpu_ids"
            raise EngineError(f"there is no GPU {index}, only {count}", hint=hint)
        self._call("cudaSetDevice", index)
        (properties,) = self._call("cudaGetDeviceProperties", index)
        name = properties.name
        self.name = (name.decode() if isinstance(name, bytes) else str(name)).rstrip("\0")
        self.capability = f"{properties.major}.{properties.minor}"
        (stream,) = self._call("cudaStreamCreate")
        self._stream = stream

    @property
    def stream(self) -> int:
        """The handle of the stream."""
        return int(self._stream)

    def allocate(self, size: int) -> int:
        """Memory of `size` bytes."""
        (address,) = self._call("cudaMalloc", size)
        return int(address)

    def free(self, address: int) -> None:
        """Returns memory."""
        self._call("cudaFree", address)

    def upload(self, array: np.ndarray, address: int) -> None:
        """Starts to copy an array to the device; it must stay as it is until `wait` returned."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", address, array.ctypes.data, array.nbytes, kind, self._stream)

    def download(self, address: int, array: np.ndarray) -> None:
        """Starts to copy from the device into an array; it holds the values when `wait` returned."""
        kind = self._cuda.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", array.ctypes.data, address, array.nbytes, kind, self._stream)

    def wait(self) -> None:
        """Returns when all that was started is done. Raises EngineError where something of it failed."""
        self._call("cudaStreamSynchronize", self._stream)

    def _call(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        error, *results = getattr(self._cuda, name)(*arguments)
        if int(error) != 0:
            raise EngineError(f"CUDA: {name}: {getattr(error, 'name', error)}")
        return tuple(results)
