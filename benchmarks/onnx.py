"""ONNX files in ONNX Runtime beside their frameworks: `python -m benchmarks.onnx --backbone swin_t --size 512`.

Four sides with the same random weights and the same image: this project's exported graph, that of Hugging Face's model
(torch.onnx), this project in jitted JAX, Hugging Face in PyTorch eager. Each has a process of its own; they take turns.
"""

import json
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks import contest, duel
from benchmarks.machine import cores, describe
from benchmarks.workload import BACKBONES, CLASSES, PIXEL_MEAN, PIXEL_STD, Workload
from oneformer_jax.data.categories import Categories
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


def write_ours(workload: Workload, weights: Path, path: Path) -> None:
    """As `python cli.py export` with the defaults: any batch size."""
    from benchmarks import ours
    from converters.onnx.export import write
    from converters.onnx.graph import build_graph
    from oneformer_jax.deploy.metadata import Metadata

    config = ours.model_config(workload)
    categories = Categories.from_json([{"id": i, "name": f"object {i}"} for i in range(CLASSES)])
    rows = tuple(map(tuple, task_tokens(config.task_pad_id, config.task_seq_len).tolist()))
    size, queries = (workload.size, workload.size), config.transformer.num_queries
    metadata = Metadata(categories, CLASSES, queries, size, -1, PIXEL_MEAN, PIXEL_STD, 0, rows, "random weights")
    write(build_graph(ours.read_weights(weights), config, metadata, opset=OPSET), path)


def write_peer(workload: Workload, path: Path) -> None:
    """Hugging Face's model through torch.onnx, the batch static: its graph holds Python numbers of the traced one."""
    import torch

    from benchmarks import peer

    class Logits(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = peer.build(workload)

        def forward(self, images: torch.Tensor, task: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            outputs = self.model(images, task)
            return outputs.class_queries_logits, outputs.masks_queries_logits

    images = torch.from_numpy(np.ascontiguousarray(workload.images.transpose(0, 3, 1, 2)))
    inputs = (images, torch.from_numpy(workload.task.astype(np.float32)))
    with torch.no_grad():
        torch.onnx.export(Logits().eval(), inputs, str(path), opset_version=OPSET, dynamo=False)


def measure(workload: Workload, rounds: int, folder: Path) -> dict[str, Any]:
    """Times of all sides in turns, sizes and node counts of the files, agreement of all outputs with PyTorch's."""
    import onnx

    from benchmarks import inference, peer

    weights, files = folder / "weights.safetensors", (folder / "ours.onnx", folder / "peer.onnx")
    duel.in_process(partial(peer.export_weights, workload, weights))
    duel.in_process(partial(write_ours, workload, weights, files[0]))
    duel.in_process(partial(write_peer, workload, files[1]))
    sides: list[duel.Contestant] = [partial(Session, workload, file) for file in files]
    sides += inference.contestants(workload, weights)
    workers = [duel.Worker(side) for side in sides]
    times: list[list[float]] = [[] for _ in workers]
    try:
        for worker in workers:
            for _ in range(1 + duel.WARM_UP):
                worker("run")
        outputs = [worker("outputs") for worker in workers]
        for turn in range(rounds):
            for index in np.roll(np.arange(len(workers)), turn).tolist():
                worker = workers[index]
                worker("run")
                times[index].append(float(np.median([worker.timed("run")[0] for _ in range(duel.CALLS)])))
    finally:
        for worker in workers:
            worker.__exit__()
    result: dict[str, dict[str, Any]] = {}
    for index, name in enumerate(SIDES):
        pairs = zip(outputs[index], outputs[-1], strict=True)
        within = [float(np.mean(np.abs(a - b) < 1e-3 * np.abs(b).max())) for a, b in pairs]
        result[name] = {"ms": [round(1000 * seconds, 1) for seconds in times[index]], "within_1e-3_of_pytorch": within}
        if index < len(files):
            result[name]["nodes"] = len(onnx.load(str(files[index])).graph.node)
            result[name]["megabytes"] = round(files[index].stat().st_size / 1e6, 1)
    return result


def table(result: dict[str, Any]) -> Table:
    """One row a side."""
    rows = Table("", "ms, median", "ms, fastest and slowest turn", "nodes", "MB", "within 1e-3 of PyTorch")
    for name, side in result.items():
        turns, within = side["ms"], ", ".join(f"{100 * share:.2f} %" for share in side["within_1e-3_of_pytorch"])
        figures = (f"{np.median(turns):.0f}", f"{min(turns):.0f} - {max(turns):.0f}")
        rows.add_row(name, *figures, str(side.get("nodes", "")), str(side.get("megabytes", "")), within)
    return rows


if __name__ == "__main__":
    parser = contest.option_parser(__doc__)
    parser.add_argument("--backbone", choices=BACKBONES, default="swin_t")
    options = parser.parse_args()
    chosen = Workload(options.backbone, options.size, options.batch, "cpu", training=False)
    with tempfile.TemporaryDirectory() as temporary:
        found = measure(chosen, options.rounds, Path(temporary))
    Console(width=140).print(table(found))
    print(json.dumps(describe() | {"sides": found}))
