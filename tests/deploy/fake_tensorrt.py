"""TensorRT and the CUDA runtime as far as this project calls them: an "engine" is the ONNX file, run by ONNX Runtime.

`FakeTensorRT(version)` stands in for the module `tensorrt`, `FakeCuda()` for `cuda.bindings.runtime`. Every class,
method, parameter and enumeration here exists in the real modules: `test_fake_tensorrt.py` compares them. Calls in an
order that TensorRT refuses, forgotten profiles and stray addresses fail.
"""

import enum
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper


class Severity(enum.IntEnum):
    INTERNAL_ERROR, ERROR, WARNING, INFO, VERBOSE = range(5)


class ILogger:
    Severity = Severity

    def __init__(self) -> None:
        pass

    def log(self, severity: Severity, msg: str) -> None:
        raise NotImplementedError


class NetworkDefinitionCreationFlag(enum.IntEnum):
    STRONGLY_TYPED = 1


class BuilderFlag(enum.IntEnum):
    TF32 = 3


class MemoryPoolType(enum.IntEnum):
    WORKSPACE = 0


class ProfilingVerbosity(enum.IntEnum):
    LAYER_NAMES_ONLY, NONE, DETAILED = range(3)


class ITensor:
    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        self.name, self.shape = name, shape


class LayerType(enum.IntEnum):
    CONVOLUTION, GRID_SAMPLE = 0, 42


class DataType(enum.IntEnum):
    FLOAT, HALF, INT8, INT32, BOOL, UINT8 = range(6)


class InterpolationMode(enum.IntEnum):
    NEAREST, LINEAR, CUBIC = range(3)


class ILayer:
    def __init__(self, node: onnx.NodeProto, opset: int) -> None:
        self._node, self._opset = node, opset
        self.type = LayerType.GRID_SAMPLE if node.op_type == "GridSample" else LayerType.CONVOLUTION


class IGridSampleLayer(ILayer):
    @property
    def interpolation_mode(self) -> InterpolationMode:
        found = {fact.name: fact.s for fact in self._node.attribute}["mode"]
        return InterpolationMode.NEAREST if found == b"nearest" else InterpolationMode.LINEAR

    @interpolation_mode.setter
    def interpolation_mode(self, mode: InterpolationMode) -> None:
        assert mode == InterpolationMode.LINEAR
        name = b"linear" if self._opset >= 20 else b"bilinear"
        next(fact for fact in self._node.attribute if fact.name == "mode").s = name


class INetworkDefinition:
    def __init__(self, flags: int) -> None:
        self._flags, self._model, self._inputs = flags, onnx.ModelProto(), []

    @property
    def num_layers(self) -> int:
        return len(self._model.graph.node)

    def get_layer(self, index: int) -> ILayer:
        return ILayer(self._model.graph.node[index], self._model.opset_import[0].version)

    @property
    def num_inputs(self) -> int:
        return len(self._inputs)

    def get_input(self, index: int) -> ITensor:
        return self._inputs[index]


class ParserError:
    def __init__(self, text: str) -> None:
        self._text = text

    def desc(self) -> str:
        return self._text


class OnnxParser:
    def __init__(self, network: INetworkDefinition, logger: ILogger) -> None:
        assert isinstance(logger, ILogger)
        self._network, self._errors = network, []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> ParserError:
        return self._errors[index]

    def parse_from_file(self, model: str) -> bool:
        assert isinstance(model, str)
        found = onnx.load(model)
        foreign = [node.op_type for node in found.graph.node if node.domain not in ("", "ai.onnx")]
        if foreign:
            self._errors.append(ParserError(f"Plugin not found: {foreign[0]}"))
            return False
        for fact in (fact for node in found.graph.node for fact in node.attribute):
            if fact.name == "mode" and fact.s == b"linear":
                fact.s = b"nearest"  # as parsers of some versions read it
        self._network._model = found
        for value in found.graph.input:
            dimensions = value.type.tensor_type.shape.dim
            shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in dimensions)
            self._network._inputs.append(ITensor(value.name, shape))
        return True


class IOptimizationProfile:
    def __init__(self) -> None:
        self._shapes: dict[str, tuple[tuple[int, ...], ...]] = {}

    def set_shape(self, input: str, min: tuple[int, ...], opt: tuple[int, ...], max: tuple[int, ...]) -> None:
        assert all(a <= b <= c for a, b, c in zip(min, opt, max, strict=True)), (min, opt, max)
        self._shapes[input] = (tuple(min), tuple(opt), tuple(max))


class IHostMemory:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self._content)

    def __bytes__(self) -> bytes:
        return self._content


class ITimingCache:
    def __init__(self, content: bytes) -> None:
        self._content = content

    def serialize(self) -> IHostMemory:
        return IHostMemory(self._content)


class IBuilderConfig:
    def __init__(self) -> None:
        self.profiling_verbosity = ProfilingVerbosity.LAYER_NAMES_ONLY
        self._limits: dict[MemoryPoolType, int] = {}
        self._flags = {BuilderFlag.TF32}
        self._profiles: list[IOptimizationProfile] = []
        self._cache: ITimingCache | None = None

    def set_memory_pool_limit(self, pool: MemoryPoolType, pool_size: int) -> None:
        self._limits[pool] = pool_size

    def clear_flag(self, flag: BuilderFlag) -> None:
        self._flags.discard(flag)

    def add_optimization_profile(self, profile: IOptimizationProfile) -> int:
        self._profiles.append(profile)
        return len(self._profiles) - 1

    def create_timing_cache(self, serialized_timing_cache: bytes) -> ITimingCache:
        return ITimingCache(serialized_timing_cache)

    def set_timing_cache(self, cache: ITimingCache, ignore_mismatch: bool) -> bool:
        if not ignore_mismatch and cache._content and not cache._content.startswith(b"timings"):
            return False
        self._cache = cache
        return True

    def get_timing_cache(self) -> ITimingCache | None:
        return self._cache


class IExecutionContext:
    def __init__(self, engine: "ICudaEngine") -> None:
        self._engine, self._shapes, self._addresses = engine, {}, {}

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        smallest, _, largest = self._engine._plan["profile"][name]
        fits = all(a <= b <= c for a, b, c in zip(smallest, shape, largest, strict=True))
        self._shapes |= {name: tuple(shape)} if fits else {}
        return fits

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        assert self._shapes.keys() >= self._engine._inputs.keys(), "the shapes of all inputs come first"
        batch = next(iter(self._shapes.values()))[0]
        return self._shapes.get(name, (batch, *self._engine.get_tensor_shape(name)[1:]))

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        engine, cuda = self._engine, FakeCuda.current
        assert cuda is not None
        assert stream_handle in cuda.streams
        assert self._addresses.keys() == {*engine._inputs, *engine._outputs}
        feeds = {
            name: cuda.read(self._addresses[name], self._shapes[name], engine._dtype(name)) for name in engine._inputs
        }
        for name, array in zip(engine._outputs, engine._session.run(list(engine._outputs), feeds), strict=True):
            assert array.shape == self.get_tensor_shape(name)
            cuda.write(self._addresses[name], array)
        return True


class ICudaEngine:
    def __init__(self, plan: dict[str, Any]) -> None:
        self._plan = plan
        self._session = onnxruntime.InferenceSession(_in_float32(plan["model"]))
        self._inputs = {node.name: node for node in self._session.get_inputs()}
        self._outputs = {node.name: node for node in self._session.get_outputs()}

    @property
    def num_io_tensors(self) -> int:
        return len(self._inputs) + len(self._outputs)

    def get_tensor_name(self, index: int) -> str:
        return [*self._inputs, *self._outputs][index]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        node = (self._inputs | self._outputs)[name]
        return tuple(edge if isinstance(edge, int) else -1 for edge in node.shape)

    def get_tensor_dtype(self, name: str) -> "DataType":
        return DataType[self._dtype(name).name.upper().replace("FLOAT32", "FLOAT")]

    def _dtype(self, name: str) -> np.dtype:
        kind = (self._inputs | self._outputs)[name].type
        return np.dtype(kind.removeprefix("tensor(").removesuffix(")").replace("float", "float32"))

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        assert profile_index == 0
        return list(self._plan["profile"][name])

    def create_execution_context(self) -> IExecutionContext:
        return IExecutionContext(self)


def _in_float32(content: bytes) -> bytes:
    """Without bfloat16, which ONNX Runtime lacks on a CPU."""
    model = onnx.load_from_string(content)
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.BFLOAT16:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    for node in model.graph.node:
        for fact in node.attribute:
            if node.op_type == "Cast" and fact.i == onnx.TensorProto.BFLOAT16:
                fact.i = onnx.TensorProto.FLOAT
    return model.SerializeToString()


class Runtime:
    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> ICudaEngine | None:
        try:
            return ICudaEngine(pickle.loads(serialized_engine))
        except Exception:
            self._logger.log(Severity.ERROR, "Magic tag does not match")
            return None


class Builder:
    built: IBuilderConfig | None = None  # the configuration of the last engine
    network: INetworkDefinition | None = None
    samples_nearest = False  # as versions with a fault do, whatever the graph says

    def __init__(self, logger: ILogger) -> None:
        self._logger = logger

    def create_network(self, flags: int = 0) -> INetworkDefinition:
        Builder.network = INetworkDefinition(flags)
        return Builder.network

    def create_builder_config(self) -> IBuilderConfig:
        return IBuilderConfig()

    def create_optimization_profile(self) -> IOptimizationProfile:
        return IOptimizationProfile()

    def build_serialized_network(self, network: INetworkDefinition, config: IBuilderConfig) -> IHostMemory | None:
        (profile,) = config._profiles or [IOptimizationProfile()]
        for tensor in network._inputs:
            shapes = profile._shapes.get(tensor.name)
            if shapes is None or any(
                wanted not in (-1, *edges) for wanted, *edges in zip(tensor.shape, *shapes, strict=True)
            ):
                self._logger.log(Severity.ERROR, f"no profile for {tensor.name}")
                return None
        if config._limits.get(MemoryPoolType.WORKSPACE, 0) < 2**20:
            self._logger.log(Severity.ERROR, "insufficient workspace")
            return None
        Builder.built = config
        if config._cache is not None:
            config._cache._content = b"timings" + config._cache._content.removeprefix(b"timings")
        if Builder.samples_nearest:
            for node in network._model.graph.node:
                for fact in (fact for fact in node.attribute if node.op_type == "GridSample" and fact.name == "mode"):
                    fact.s = b"nearest"
        plan = {"model": network._model.SerializeToString(), "profile": profile._shapes}
        return IHostMemory(pickle.dumps(plan))


class FakeTensorRT:
    """The module of one version."""

    Builder, BuilderFlag, ICudaEngine, IExecutionContext, ILogger = (
        Builder,
        BuilderFlag,
        ICudaEngine,
        IExecutionContext,
        ILogger,
    )
    MemoryPoolType, NetworkDefinitionCreationFlag, OnnxParser = (
        MemoryPoolType,
        NetworkDefinitionCreationFlag,
        OnnxParser,
    )
    ProfilingVerbosity, Runtime = ProfilingVerbosity, Runtime
    DataType, IGridSampleLayer, InterpolationMode, LayerType = (
        DataType,
        IGridSampleLayer,
        InterpolationMode,
        LayerType,
    )

    def __init__(self, version: str = "10.16.1.11") -> None:
        self.__version__ = version


CLASSES = (
    Builder,
    BuilderFlag,
    DataType,
    IBuilderConfig,
    ICudaEngine,
    IExecutionContext,
    IGridSampleLayer,
    IHostMemory,
    ILayer,
    ILogger,
    INetworkDefinition,
    IOptimizationProfile,
    ITensor,
    ITimingCache,
    InterpolationMode,
    LayerType,
    MemoryPoolType,
    NetworkDefinitionCreationFlag,
    OnnxParser,
    ParserError,
    ProfilingVerbosity,
    Runtime,
)


class Error(enum.IntEnum):
    cudaSuccess, cudaErrorInvalidValue = 0, 1


class FakeCuda:
    """`cuda.bindings.runtime` with `count` GPUs; memory is a dictionary, and what is copied out arrives at a wait."""

    current: "FakeCuda | None" = None

    class cudaMemcpyKind(enum.IntEnum):
        cudaMemcpyHostToDevice, cudaMemcpyDeviceToHost = 1, 2

    def __init__(self, count: int = 1, name: str = "GPU A", capability: tuple[int, int] = (8, 9)) -> None:
        self.count, self.name, self.capability = count, name, capability
        self.memory: dict[int, bytearray] = {}
        self.streams: list[int] = []
        self.pending: list[Any] = []
        self.chosen: int | None = None
        FakeCuda.current = self

    def read(self, address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        self._flush()
        size = dtype.itemsize * int(np.prod(shape))
        return np.frombuffer(bytes(self.memory[address][:size]), dtype).reshape(shape)

    def write(self, address: int, array: np.ndarray) -> None:
        content = np.ascontiguousarray(array).tobytes()
        assert len(content) <= len(self.memory[address]), "beyond the buffer"
        self.memory[address][: len(content)] = content

    def _flush(self) -> None:
        pending, self.pending = self.pending, []
        for copy in pending:
            copy()

    def cudaGetDeviceCount(self) -> tuple[Error, int]:
        return Error.cudaSuccess, self.count

    def cudaSetDevice(self, device: int) -> tuple[Error]:
        self.chosen = device
        return (Error.cudaSuccess,)

    def cudaGetDeviceProperties(self, device: int) -> tuple[Error, Any]:
        facts = {"name": self.name.encode() + b"\0", "major": self.capability[0], "minor": self.capability[1]}
        return Error.cudaSuccess, type("cudaDeviceProp", (), facts)()

    def cudaStreamCreate(self) -> tuple[Error, int]:
        self.streams.append(len(self.streams) + 7)
        return Error.cudaSuccess, self.streams[-1]

    def cudaMalloc(self, size: int) -> tuple[Error, int]:
        address = max(self.memory, default=0) + 4096
        self.memory[address] = bytearray(size)
        return Error.cudaSuccess, address

    def cudaFree(self, devPtr: int) -> tuple[Error]:
        return (Error.cudaSuccess if self.memory.pop(devPtr, None) is not None else Error.cudaErrorInvalidValue,)

    def cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: int, stream: int) -> tuple[Error]:
        import ctypes

        assert stream in self.streams
        if kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice:
            assert count <= len(self.memory[dst]), "beyond the buffer"
            self.memory[dst][:count] = ctypes.string_at(src, count)
        else:
            content = self.memory[src]
            self.pending.append(lambda: ctypes.memmove(dst, bytes(content[:count]), count))
        return (Error.cudaSuccess,)

    def cudaStreamSynchronize(self, stream: int) -> tuple[Error]:
        assert stream in self.streams
        self._flush()
        return (Error.cudaSuccess,)


def plan_of(path: Path) -> dict[str, Any]:
    """What a fake engine file holds."""
    return pickle.loads(path.read_bytes())
