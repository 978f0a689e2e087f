"""A server that speaks Triton's protocol and runs the models of a repository in ONNX Runtime, as their configuration
says: a request must have the shapes and types of config.pbtxt, and so must what the model returns."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnxruntime
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2, service_pb2, service_pb2_grpc

KINDS = {"TYPE_UINT8": np.uint8, "TYPE_INT32": np.int32, "TYPE_FP32": np.float32, "TYPE_BOOL": np.bool_}


def configuration(folder: Path) -> Any:
    """What a model's config.pbtxt says; a word that Triton does not know is an error."""
    return text_format.Parse((folder / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())


class Models(service_pb2_grpc.GRPCInferenceServiceServicer):
    def __init__(self, repository: Path) -> None:
        folders = [entry for entry in repository.iterdir() if entry.is_dir()]
        self.configurations = {folder.name: configuration(folder) for folder in folders}
        assert all(name == found.name for name, found in self.configurations.items())
        self.sessions = {
            folder.name: onnxruntime.InferenceSession(
                folder / "1" / self.configurations[folder.name].default_model_filename
            )
            for folder in folders
        }

    def ModelConfig(self, request: Any, context: Any) -> Any:
        return service_pb2.ModelConfigResponse(config=self.configurations[request.name])

    def ModelInfer(self, request: Any, context: Any) -> Any:
        found, response = self.configurations[request.model_name], service_pb2.ModelInferResponse()
        feeds = {}
        for tensor, content in zip(request.inputs, request.raw_input_contents, strict=True):
            (described,) = (entry for entry in found.input if entry.name == tensor.name)
            shape = check(found, described, tuple(tensor.shape))
            kind = KINDS[model_config_pb2.DataType.Name(described.data_type)]
            feeds[tensor.name] = np.frombuffer(content, kind).reshape(shape)
        names = [entry.name for entry in found.output]
        for described, array in zip(found.output, self.sessions[found.name].run(names, feeds), strict=True):
            kind = model_config_pb2.DataType.Name(described.data_type)
            assert array.dtype == KINDS[kind]
            datatype = kind.removeprefix("TYPE_")
            shape = check(found, described, array.shape)
            response.outputs.add(name=described.name, datatype=datatype, shape=shape)
            response.raw_output_contents.append(array.tobytes())
        return response


def check(found: Any, described: Any, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape of a tensor, which is that of the configuration, behind a batch where the server makes batches."""
    batch, rest = (shape[:1], shape[1:]) if found.max_batch_size else ((), shape)
    assert rest == tuple(described.dims), (described.name, shape)
    assert all(1 <= size <= found.max_batch_size for size in batch)
    return shape


@contextmanager
def serving(repository: Path) -> Iterator[str]:
    """Its address, while it runs."""
    server = grpc.server(ThreadPoolExecutor(1))
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(Models(repository), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None)
