"""A model ready to use, whatever computes it: `load_model` opens checkpoints, ONNX files and TensorRT engines.

`measure` says how long it takes for a batch.
"""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from jaxtyping import Bool, UInt8

from oneformer_jax.checkpoints.agreement import Statistics
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import of_any_size
from oneformer_jax.data.geometry import Geometry, Letterbox, Policy, Size, resize_and_pad
from oneformer_jax.data.given_picture import as_picture
from oneformer_jax.errors import EngineError, needs
from oneformer_jax.evaluation.backend import Asked, Backend, Pending, pending_results
from oneformer_jax.evaluation.batches import filled, in_order
from oneformer_jax.evaluation.in_windows import result_in_windows
from oneformer_jax.postprocess.results import Result, Thresholds
from oneformer_jax.postprocess.windows import Windows
from oneformer_jax.predict.exported import (
    EXPORTED_SUFFIXES,
    OnnxBackend,
    check_batch_size,
    is_exported,
)
from oneformer_jax.predict.prediction import Prediction
from oneformer_jax.predict.runs import Stated
from oneformer_jax.predict.tensorrt_engine import TensorRTBackend, TensorRTEngine
from oneformer_jax.tasks import TASKS, Task, task_of

if TYPE_CHECKING:
    from jax.sharding import Mesh


PERCENTILES = (50, 90, 99)
AHEAD = 8
"""Batches of pictures from an iterator that wait for others of their size."""


@dataclass(frozen=True)
class Predictor:
    """A model with its classes. `path` and `provider` say for people what it is and what computes it.

    `policy` sizes the images of `predict`; `image_size` (height, width) is the one size that the model takes, None: any
    multiple of 32. `batch_sizes` are the fewest and the most images that it takes at once; None: any number.
    `statistics` are the mean and the deviation by which it normalises pixels.
    """

    path: str
    provider: str
    backend: Backend
    categories: Categories
    num_classes: int
    policy: Policy
    thresholds: Thresholds = field(default_factory=Thresholds)
    image_size: Size | None = None
    batch_sizes: tuple[int, int | None] = (1, None)
    statistics: Statistics | None = None

    def __repr__(self) -> str:
        size = f", images of {self.image_size[0]}x{self.image_size[1]}" if self.image_size else ""
        return f"Predictor({self.path}: {self.num_classes} classes, {self.provider}{size})"

    @overload
    def predict(
        self,
        picture: list[Any] | tuple[Any, ...],
        *tasks: Task | str,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> list[Prediction]: ...

    @overload
    def predict(
        self,
        picture: Iterator[Any],
        *tasks: Task | str,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Iterator[Prediction]: ...

    @overload
    def predict(
        self,
        picture: Any,
        *tasks: Task | str,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Prediction: ...

    def predict(
        self,
        picture: Any,
        *tasks: Task | str,
        batch_size: int | None = None,
        tile: int | None = None,
        overlap: int | None = None,
    ) -> Prediction | list[Prediction] | Iterator[Prediction]:
        """The results of one picture for `tasks` (without any: for all three), at the size of the picture; of a list
        of pictures a list, `batch_size` at a time (None: 1, or what the model takes). Of an iterator of pictures, such
        as a generator, an iterator in the same order: it takes pictures when they are needed, and at most `AHEAD`
        batches of them, of whatever sizes, are in memory. `model(...)` is the same.

        A picture is an array of RGB in uint8, (height, width, 3), or what else `as_picture` takes: a path, a Pillow
        image, uint16, floating point in 0..1, grey. Geometry and thresholds of a checkpoint are those that it was
        trained to be evaluated with; an exported model fits the picture into its own size.

        A picture larger than `tile` pixels is predicted in tiles of that side, `batch_size` at a time, of which
        neighbours share `overlap` pixels or more (None: an eighth of the side), and whose results are one result (see
        `postprocess.assembled`): the model sees each tile as it would see a picture.

        Raises ValueError: unknown task, a batch of less than one, tiles that share nothing or more than half;
        DataError: no picture; EngineError: a batch that the model does not take.
        """
        chosen = [task_of(task) for task in tasks] or TASKS
        count = self.batch_size(batch_size, 1)
        if tile is not None:
            windows = Windows.of_sides(tile, overlap)
            if isinstance(picture, Iterator):
                return (self._in_windows(one, windows, chosen, count) for one in picture)
            if isinstance(picture, list | tuple):
                return [self._in_windows(one, windows, chosen, count) for one in picture]
            return self._in_windows(picture, windows, chosen, count)
        if overlap is not None:
            raise ValueError("an overlap without tiles has no meaning: give tile=, too")
        if isinstance(picture, Iterator):
            return self._predictions(map(as_picture, picture), chosen, count, AHEAD * count)
        if isinstance(picture, list | tuple):
            return list(self._predictions([as_picture(one) for one in picture], chosen, count, len(picture)))
        return next(self._predictions([as_picture(picture)], chosen, count, 1))

    __call__ = predict

    def _predictions(
        self, images: Iterable[UInt8[np.ndarray, "_ _ 3"]], tasks: Sequence[Task], count: int, most: int
    ) -> Iterator[Prediction]:
        def results(batch: list[tuple[UInt8[np.ndarray, "_ _ 3"], Geometry]]) -> list[Prediction]:
            pictures, geometries = zip(*filled(batch, count), strict=True)
            found = self.predict_batch(pictures, geometries, tasks)
            return [self._told(result, image) for result, (image, _) in zip(found, batch, strict=False)]

        return in_order(((image, self.policy(image.shape[:2])) for image in images), count, results, most)

    def _in_windows(self, picture: Any, windows: Windows, tasks: Sequence[Task], count: int) -> Prediction:
        with of_any_size():
            image = as_picture(picture)
        result = result_in_windows(self.backend, image, windows, self.policy, self.asked(tasks), count)
        return self._told(result, image)

    def _told(self, found: Result, image: UInt8[np.ndarray, "_ _ 3"]) -> Prediction:
        """A result with what it is of."""
        return Prediction(
            found.semantic,
            found.instance,
            found.panoptic,
            picture=image,
            categories=self.categories,
            min_score=self.thresholds.object_mask_threshold,
        )

    def predict_batch(
        self, pictures: Sequence[Any], geometries: Sequence[Geometry], tasks: Sequence[Task]
    ) -> list[Result]:
        """One result a picture (see `predict`), at its own size; the geometries must pad all to one common size."""
        return [result() for result in self.pending_batch(pictures, geometries, tasks)]

    def pending_batch(
        self, pictures: Sequence[Any], geometries: Sequence[Geometry], tasks: Sequence[Task]
    ) -> list[Pending]:
        """As `predict_batch`, but each result is a function that does what is left to do for it: a GPU goes on
        meanwhile."""
        if not len(pictures):
            return []
        images = map(as_picture, pictures)
        padded = np.stack([resize_and_pad(*pair) for pair in zip(images, geometries, strict=True)])
        return pending_results(self.backend, padded, geometries, self.asked(tasks))

    def asked(self, tasks: Sequence[Task]) -> Asked:
        """What a backend is asked for results of these tasks."""
        return Asked(tasks, self.is_thing, self.thresholds)

    @property
    def is_thing(self) -> Bool[np.ndarray, " k"]:
        """Of every output class; outputs beyond the categories are stuff."""
        return self.categories.is_thing_of(self.num_classes)

    def batch_size(self, wanted: int | None, usual: int) -> int:
        """How many images to give it at once: `wanted` where that is given, else what it takes that is next to `usual`.

        Raises EngineError: more are wanted than it takes; ValueError: fewer than one.
        """
        smallest, largest = self.batch_sizes
        if wanted is not None:
            if not isinstance(wanted, int) or wanted < 1:
                raise ValueError(f"a batch has a whole number of images, 1 or more, not {wanted!r}")
            check_batch_size(wanted, largest, self.path)
            return wanted
        return max(usual, smallest) if largest is None else min(max(usual, smallest), largest)


def load_model(
    path: Path | str,
    *,
    mesh: "Mesh | None" = None,
    device_id: int = 0,
    precision: str = "32",
    stated: Stated | None = None,
) -> Predictor:
    """Opens a checkpoint (a step folder, or a run folder: its best checkpoint, else its latest), a folder of Hugging
    Face or weights at an address such as `hf://owner/name` (see `from_pretrained`), an exported `.onnx` file, or a
    TensorRT engine (`.engine`, `.plan`) with the JSON file beside it.

    A checkpoint runs in JAX, on the devices of `mesh` where that is given, with products in `precision`: "32",
    "bf16-mixed" or "16-mixed". The others need no JAX and run on the device
    `device_id`, as a checkpoint without a mesh does; an ONNX file on the processor where ONNX Runtime has no CUDA.

    An ONNX file of TAO needs `stated`, with a label map.

    Raises OneFormerError: nothing there, a damaged file, weights of a backbone alone, what runs it is not installed.
    """
    if is_exported(path):
        return _exported(Path(path), device_id, stated)
    if Path(path).is_file():
        expected = (
            f"expected a checkpoint's folder or a file {', '.join(EXPORTED_SUFFIXES)}; `convert {path} FOLDER` makes a "
            "checkpoint of weights of other code bases"
        )
        raise EngineError("not the name of an exported model", where=str(path), hint=expected)
    with needs("train", where=str(path)):
        from oneformer_jax.predict.jax_backend import open_checkpoint

    backend, description = open_checkpoint(path, mesh, device_id, precision)
    return Predictor(
        str(path),
        backend.provider,
        backend,
        description.categories,
        description.model.num_classes,
        description.policy,
        description.thresholds,
        statistics=(description.pixel_mean, description.pixel_std),
    )


def _exported(path: Path, device_id: int, stated: Stated | None) -> Predictor:
    backend: OnnxBackend | TensorRTBackend
    if path.suffix == ".onnx":
        backend = OnnxBackend(path, device_id=device_id, stated=stated)
    else:
        backend = TensorRTBackend(TensorRTEngine(path, device_id=device_id))
    metadata = backend.metadata
    return Predictor(
        str(path),
        backend.provider,
        backend,
        metadata.categories,
        metadata.num_classes,
        Letterbox(metadata.image_size),
        metadata.thresholds,
        image_size=metadata.image_size,
        batch_sizes=backend.batch_sizes,
        statistics=(metadata.pixel_mean, metadata.pixel_std),
    )


@dataclass(frozen=True)
class Latency:
    """Milliseconds of every measured batch of `batch_size` images."""

    batch_size: int
    milliseconds: tuple[float, ...]

    def percentile(self, percent: int) -> float:
        """The time that so many per cent of the batches take at most, in milliseconds."""
        return float(np.percentile(self.milliseconds, percent))

    @property
    def throughput(self) -> float:
        """Images a second, over all batches."""
        return 1000 * self.batch_size * len(self.milliseconds) / sum(self.milliseconds)

    def to_json(self) -> dict[str, Any]:
        """Milliseconds a batch and images a second."""
        percentiles = {f"p{percent}_ms": round(self.percentile(percent), 3) for percent in PERCENTILES}
        facts = {"batch_size": self.batch_size, "runs": len(self.milliseconds), **percentiles}
        return facts | {"min_ms": round(min(self.milliseconds), 3), "images_per_second": round(self.throughput, 3)}


def measure(
    backend: Backend, size: Size, batch_sizes: Sequence[int], task: Task, *, warm_up: int, runs: int
) -> list[Latency]:
    """Times from uint8 images in memory to logits in memory, with one task; `warm_up` runs before are not counted."""
    rng = np.random.default_rng(0)
    results = []
    for batch_size in batch_sizes:
        images = rng.integers(0, 256, (batch_size, *size, 3), np.uint8)
        sizes = np.tile(np.array(size, np.int32), (batch_size, 1))
        times = []
        for _ in range(warm_up + runs):
            start = time.perf_counter()
            backend.predict(images, sizes, [task])
            times.append(1000 * (time.perf_counter() - start))
        results.append(Latency(batch_size, tuple(times[warm_up:])))
    return results
