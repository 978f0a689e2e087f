"""The JAX model as a backend of the evaluator and the predictor: logits for the host or, from GPUs, results."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Int, UInt8

from oneformer_jax.checkpoints.description import Description
from oneformer_jax.checkpoints.read import is_checkpoint, load_checkpoint
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.data.storage.addresses import is_address
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import OneFormerError
from oneformer_jax.evaluation.backend import Asked, BatchLogits, Pending, resized_sizes
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import normalise
from oneformer_jax.models.precision import KERNEL_DTYPES, with_kernels_in
from oneformer_jax.models.predictions import Features, Predictions
from oneformer_jax.predict.ahead import Ahead
from oneformer_jax.predict.on_device.decided import Decided, are_finite, program, rule_inputs
from oneformer_jax.predict.on_device.sampling import room_for, split_by_image
from oneformer_jax.predict.pretrained import from_pretrained
from oneformer_jax.tasks import TASKS, Task


class JaxBackend:
    """Runs a model for the evaluator and the predictor: encodes a batch once, decodes it for each task.

    Compiled once a padded shape. The devices of `mesh`, by default the first one, share the images of a batch evenly.
    `params` may be replaced between calls (validation during training).
    """

    def __init__(
        self,
        config: OneFormerConfig,
        params: Any,
        pixel_mean: tuple[float, float, float],
        pixel_std: tuple[float, float, float],
        mesh: Mesh | None = None,
    ) -> None:
        self.mesh = mesh = mesh or _mesh_of(0)
        self.config = config = config.on(mesh)
        self.provider = f"JAX {jax.__version__} on {mesh.devices.flat[0].platform}"
        self._split = split_by_image(mesh)
        self.params = jax.device_put(params, NamedSharding(mesh, PartitionSpec()))
        rows = task_tokens(config.task_pad_id, config.task_seq_len)
        self._task_rows = {task: rows[TASKS.index(task)] for task in TASKS}

        def encode(params: Any, images: UInt8[Array, "b h w 3"], sizes: Int[Array, "b 2"]) -> Features:
            return oneformer.encode(params, normalise(images, pixel_mean, pixel_std, sizes), config=config)

        def decode(params: Any, features: Features, tokens: Int[Array, "b n"]) -> Predictions:
            return oneformer.predict(params, features, tokens, config=config)

        self._encode, self._decode = jax.jit(encode), jax.jit(decode)
        self._ahead = Ahead()

    @property
    def num_classes(self) -> int:
        """Of the logits, without "no object"."""
        return self.config.num_classes

    def predict(
        self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"], tasks: Sequence[Task]
    ) -> dict[Task, BatchLogits]:
        """Class and mask logits per task; `sizes` are the (height, width) inside the padded images that hold image."""
        self._ahead.wait_for(images.shape[:3])
        features = self._encoded(images, sizes)
        return {task: jax.device_get(tuple(self._decoded(features, task, len(images)))) for task in tasks}

    def compiling_ahead(self, batches: Sequence[Sequence[Geometry]], asked: Asked) -> AbstractContextManager[None]:
        """As `evaluation.backend.CompilingBackend`."""
        alike: dict[tuple[int, ...], list[Sequence[Geometry]]] = {}
        for batch in batches:
            alike.setdefault((len(batch), *batch[0].padded), []).append(batch)
        return self._ahead.compiling(
            {shape: partial(self._compile, of_shape, asked) for shape, of_shape in alike.items()}
        )

    @property
    def compiled(self) -> tuple[int, int]:
        """How many shapes of batches are compiled, of how many that are known to come."""
        return self._ahead.progress

    def _compile(self, batches: Sequence[Sequence[Geometry]], asked: Asked) -> Predictions:
        """What batches of one padded shape need. Returns the shapes of their logits."""
        count, padded = len(batches[0]), batches[0][0].padded
        images = jax.ShapeDtypeStruct((count, *padded, 3), np.uint8, sharding=self._split)
        sizes = jax.ShapeDtypeStruct((count, 2), np.int32, sharding=self._split)
        features = _compiled(self._encode, self.params, images, sizes)
        return _compiled(self._decode, self.params, features, self._tokens(asked.tasks[0], count))

    def _encoded(self, images: UInt8[np.ndarray, "b h w 3"], sizes: Int[np.ndarray, "b 2"]) -> Features:
        return self._encode(self.params, *jax.device_put((images, sizes), self._split))

    def _decoded(self, features: Features, task: Task, count: int) -> Predictions:
        return self._decode(self.params, features, self._tokens(task, count))

    def _tokens(self, task: Task, count: int) -> Int[Array, "b n"]:
        return jax.device_put(np.tile(self._task_rows[task], (count, 1)), self._split)


class OnDeviceBackend(JaxBackend):
    """A `JaxBackend` whose devices post-process, too: logits stay there (see `on_device`)."""

    def decide(
        self, images: UInt8[np.ndarray, "b h w 3"], geometries: Sequence[Geometry], asked: Asked
    ) -> list[Pending]:
        """As `evaluation.backend.DecidingBackend`."""
        self._ahead.wait_for(images.shape[:3])
        features = self._encoded(images, resized_sizes(geometries))
        predictions = {task: self._decoded(features, task, len(images)) for task in asked.tasks}
        decided = Decided(predictions, geometries, asked, self.mesh)
        return [partial(decided.result, row) for row in range(len(images))]

    def _compile(self, batches: Sequence[Sequence[Geometry]], asked: Asked) -> Predictions:
        logits = super()._compile(batches, asked)
        _compiled(are_finite, logits.class_logits)
        for batch in {room_for([geometry.original for geometry in batch]): batch for batch in batches}.values():
            inputs = rule_inputs(batch, logits[1].shape[2:], asked)
            for task in asked.tasks:
                of_task = jax.device_put(inputs[task], self._split)
                _compiled(program(task, self.mesh, asked.thresholds.test_topk_per_image), *logits, *of_task)
        return logits


def _compiled(function: Any, *arguments: Any) -> Any:
    """Compiles a jitted function for arguments like these. Returns what it would return, without values."""
    lowered = function.lower(*arguments)
    results, shardings = lowered.out_info, lowered.compile().output_shardings
    return jax.tree.map(
        lambda leaf, sharding: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding), results, shardings
    )


def backend_on(
    mesh: Mesh,
    config: OneFormerConfig,
    params: Any,
    pixel_mean: tuple[float, float, float],
    pixel_std: tuple[float, float, float],
) -> JaxBackend:
    """The backend that is fast on the devices of `mesh`: GPUs post-process, too; a CPU leaves that to NumPy, which
    computes only what can change a pixel."""
    kind = JaxBackend if mesh.devices.flat[0].platform == "cpu" else OnDeviceBackend
    return kind(config, params, pixel_mean, pixel_std, mesh)


def open_checkpoint(
    path: Path | str, mesh: Mesh | None, device_id: int, precision: str
) -> tuple[JaxBackend, Description]:
    """A checkpoint (see `load_checkpoint`), or weights at an address or in a folder of Hugging Face, which name their
    classes (see `from_pretrained`), on the devices of `mesh`, else on the device `device_id`, with products in a
    `precision` of `KERNEL_DTYPES`."""
    mesh = mesh or _mesh_of(device_id)
    device = mesh.local_devices[0]
    foreign = is_address(str(path)) or _is_of_huggingface(Path(path))
    checkpoint = from_pretrained(str(path), device=device) if foreign else load_checkpoint(path, device=device)
    description = checkpoint.description
    mean, std = description.pixel_mean, description.pixel_std
    dtype = KERNEL_DTYPES[precision]
    params = checkpoint.params if dtype is None else with_kernels_in(checkpoint.params, dtype)
    return backend_on(mesh, checkpoint.config, params, mean, std), description


def _is_of_huggingface(path: Path) -> bool:
    return (path / "config.json").is_file() and not is_checkpoint(path)


def _mesh_of(device_id: int) -> Mesh:
    """One device of this process. Raises OneFormerError: there is none of this index."""
    found = jax.local_devices()
    if device_id >= len(found):
        raise OneFormerError(
            f"there is no device {device_id}: found {len(found)} ({found[0].platform}), counted from 0",
            hint="choose another, or make more visible (CUDA_VISIBLE_DEVICES)",
        )
    return Mesh(np.array(found[device_id : device_id + 1]), ("data",))
