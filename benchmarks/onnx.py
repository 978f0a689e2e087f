"""ONNX files in ONNX Runtime beside their frameworks: `python -m benchmarks.onnx --backbone swin_t --size 512`.

Four sides with the same random weights and the same image: this project's exported graph, that of Hugging Face's model
(torch.onnx), this project in jitted JAX, Hugging Face in PyTorch eager. Each has its own process.
"""

import dataclasses
import os
import tempfile
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import command, comparison
from benchmarks.machine import cores, describe
from benchmarks.workload import BACKBONES, CLASSES, PIXEL_MEAN, PIXEL_STD, Workload
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.task_text import task_tokens

OPSET = 17
SIDES = ("ONNX of this project", "ONNX of Hugging Face", "JAX, this project", "PyTorch, Hugging Face")


class Session:
    """A file in ONNX Runtime with as many threads as the others."""

    def __init__(self, workload: Workload, path: Path) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = cores()
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        images = np.ascontiguousarray(workload.images.transpose(0, 3, 1, 2))
        inputs = (images, workload.task.astype(np.float32))
        self._feeds = {node.name: value for node, value in zip(self._session.get_inputs(), inputs, strict=True)}

    def run(self) -> None:
        self._session.run(None, self._feeds)

    def outputs(self) -> list[np.ndarray]:
        return list(self._session.run(None, self._feeds))


def write_this_project(workload: Workload, weights: Path, path: Path) -> None:
    """As `python cli.py export` with the defaults: any batch size."""
    from benchmarks import this_project
    from converters.onnx.export import write
    from converters.onnx.trace import build_graph
    from oneformer_jax.predict.metadata import Metadata

    config = this_project.model_config(workload)
    categories = Categories.from_json([{"id": i, "name": f"object {i}"} for i in range(CLASSES)])
    rows = tuple(map(tuple, task_tokens(config.task_pad_id, config.task_seq_len).tolist()))
    size, queries = (workload.size, workload.size), config.transformer.num_queries
    metadata = Metadata(categories, CLASSES, queries, size, -1, PIXEL_MEAN, PIXEL_STD, 0, rows, "random weights")
    write(build_graph(this_project.read_weights(weights), config, metadata, opset=OPSET), path)


def write_huggingface(workload: Workload, path: Path) -> None:
    """Hugging Face's model through torch.onnx, the batch static: its graph holds Python numbers of the traced one."""
    import torch

    from benchmarks import huggingface

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = huggingface.build(workload)

        def forward(self, images: torch.Tensor, task: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.model(images, task)
            return outputs.class_queries_logits, outputs.masks_queries_logits

    images = torch.from_numpy(np.ascontiguousarray(workload.images.transpose(0, 3, 1, 2)))
    inputs = (images, torch.from_numpy(workload.task.astype(np.float32)))
    with torch.no_grad():
        torch.onnx.export(Logits().eval(), inputs, str(path), opset_version=OPSET, dynamo=False)


def in_float32(path: Path) -> None:
    """Turns what is float64 in a file to float32: ONNX Runtime refuses its `GridSample` of opset 16."""
    import onnx
    from onnx import TensorProto, numpy_helper

    def narrow(tensor: TensorProto) -> None:
        if tensor.data_type == TensorProto.DOUBLE:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    model = onnx.load(str(path))
    for tensor in model.graph.initializer:
        narrow(tensor)
    for node in model.graph.node:
        for attribute in node.attribute:
            narrow(attribute.t)
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.DOUBLE:
                attribute.i = TensorProto.FLOAT
    del model.graph.value_info[:]
    onnx.save_model(model, str(path))


def measure(workload: Workload, rounds: int, folder: Path) -> dict[str, Any]:
    """Times of all sides, sizes and node counts of the files, agreement of all outputs with PyTorch's."""
    import onnx

    from benchmarks import huggingface, inference

    weights, files = folder / "weights.safetensors", (folder / "this_project.onnx", folder / "huggingface.onnx")
    comparison.in_process(partial(huggingface.export_weights, workload, weights))
    comparison.in_process(partial(write_this_project, workload, weights, files[0]))
    comparison.in_process(partial(write_huggingface, workload, files[1]))
    comparison.in_process(partial(in_float32, files[1]))
    os.environ["JAX_PLATFORMS"] = workload.device
    starts: list[comparison.Side] = [partial(Session, workload, file) for file in files]
    starts += inference.sides(workload, weights)
    with ExitStack() as stack:
        workers = {name: stack.enter_context(comparison.Worker(side)) for name, side in zip(SIDES, starts, strict=True)}
        for worker in workers.values():
            for _ in range(1 + comparison.WARM_UP):
                worker("run")
        outputs = {name: worker("outputs") for name, worker in workers.items()}
        with comparison.Others([os.getpid(), *(worker.pid for worker in workers.values())]) as others:
            times = comparison.round_times(workers, rounds)
    sides: dict[str, dict[str, Any]] = {}
    for name in SIDES:
        pairs = zip(outputs[name], outputs[SIDES[-1]], strict=True)
        within = [round(float(np.mean(np.abs(a - b) < 1e-3 * np.abs(b).max())), 5) for a, b in pairs]
        sides[name] = {"times_ms": times[name], "share_within_1e-3": within}
    for name, file in zip(SIDES, files, strict=False):
        sides[name]["nodes"] = len(onnx.load(str(file)).graph.node)
        sides[name]["megabytes"] = round(file.stat().st_size / 1e6, 1)
    return {"sides": sides, "others_share": round(others.share, 3)}


def main() -> None:
    parser = command.option_parser(__doc__)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    options = parser.parse_args()
    if options.device != "cpu":
        parser.error("measures the CPU only: `python cli.py benchmark` has the other devices")
    workload = Workload(options.backbone, options.size, options.batch, "cpu", training=False)
    with tempfile.TemporaryDirectory() as folder:
        found = measure(workload, options.rounds, Path(folder))
    described = {"kind": "onnx", "workload": dataclasses.asdict(workload), "date": date.today().isoformat()}
    name = workload.name.replace(workload.kind, "onnx", 1)
    path = command.write(options.output, name, described | {"machine": describe() | {"device": "cpu"}} | found)
    for name, side in found["sides"].items():
        print(f"{name}: {np.median(side['times_ms']):.0f} ms")
    print(path)


if __name__ == "__main__":
    main()
