"""The actions inference and predict: a model and images in, overlays and raw results out. JAX only for a checkpoint."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import Skipped, compiling, counting_categories, open_model
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.data.datasets.images import list_images, of_any_size, read_header, read_image
from oneformer_jax.data.geometry import Geometry, Letterbox, Policy, Size
from oneformer_jax.data.pictures import find_pictures
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.evaluation.backend import Pending, compiling_ahead
from oneformer_jax.evaluation.batches import filled, of_one_size
from oneformer_jax.evaluation.in_windows import result_in_windows, window_geometry
from oneformer_jax.postprocess.results import Result
from oneformer_jax.postprocess.windows import Windows
from oneformer_jax.predict.predictor import Predictor
from oneformer_jax.predict.runs import InferenceRun
from oneformer_jax.predict.selection import VOID, classes_named, only
from oneformer_jax.predict.write import ResultWriter, earlier_results, is_result
from oneformer_jax.tasks import Task


def inference(settings: InferenceRun, run: Run) -> None:
    """Writes the result of the task for every image of the folders. Raises what `_write_results` raises, and
    OneFormerError where a folder holds no image."""
    folders = [local_folder(location, what=settings.images_key) for location in settings.images]
    _write_results(settings, [path for folder in folders for path in list_images(folder)], run, Skipped(run.status))


def predict(settings: InferenceRun, run: Run) -> None:
    """Writes the result of the task for every picture that is named, but not for results, unless nothing else is.
    Raises what `_write_results` raises, and OneFormerError where something that is named holds no picture."""
    skipped = Skipped(run.status)
    found = find_pictures(settings.images, what=settings.images_key, left_out=skipped)
    paths = [path for path in found if not is_result(path)] or found
    if len(paths) < len(found):
        run.status.warning(f"{len(found) - len(paths)} pictures are results of earlier predictions, and left out")
    _write_results(settings, paths, run, skipped)


def _write_results(settings: InferenceRun, paths: list[Path], run: Run, skipped: Skipped) -> None:
    """Raises OneFormerError: no model, a class that it does not have, a file that cannot be written, a folder that
    holds the results of other images; at the end, where images cannot be read and were left out, also before.
    """
    task, wanted = settings.task, settings.wanted
    earlier = earlier_results(run.folder, task, paths)
    model, batch_size = open_model(settings.model, settings.batch_size, run)
    if earlier:
        run.status.warning(f"{len(earlier)} files of an earlier run are replaced: {run.folder / task}")
    model = replace(model, categories=counting_categories(model.categories, settings.model.stated, model.path, run))
    classes = classes_named(wanted.classes, model.categories) if wanted.classes else None
    if wanted.threshold is not None:
        model = replace(model, thresholds=replace(model.thresholds, object_mask_threshold=wanted.threshold))
        run.console.print(f"object_mask_threshold {wanted.threshold:g}, as {settings.threshold_key} says")
    size = model.image_size or settings.image_size
    policy: Policy = Letterbox(size) if size else settings.policy or model.policy
    if model.image_size and settings.image_size:
        run.status.warning(f"inference.image_size has no effect: the engine takes images in a {policy.name}")
    min_score = model.thresholds.object_mask_threshold
    asked, seen = model.asked([task]), _Seen(model)
    if settings.windows is None:
        batches = _batches(policy, paths, batch_size, skipped)
        coming = [[geometry for _, geometry in filled(batch, batch_size)] for batch in batches]
        predicted = _predicted(model, batches, batch_size, task, policy, skipped)
    else:
        in_windows = partial(
            result_in_windows,
            model.backend,
            windows=settings.windows,
            policy=policy,
            asked=asked,
            batch_size=batch_size,
        )
        coming = _shapes_in_windows(settings.windows, policy, paths, batch_size, skipped)
        predicted = _predicted_in_windows(in_windows, paths, skipped, seen)
    done = empty = 0
    with (
        compiling_ahead(model.backend, coming, asked),
        ResultWriter(
            run.folder, task, model.categories, paths, min_score, formats=wanted.formats, names=wanted.names
        ) as writer,
        waiting(f"inference ({task})", run.console, len(paths), seen) as count,
    ):
        for batch in predicted:
            for path, image, result in batch:
                found = only(result(), classes, wanted.threshold or 0.0)
                writer.add(path, image, found)
                empty += not _found(found, min_score)
            done += len(batch)
            count(done)
    run.console.print(f"{done} images ({task}): {run.folder / task}")
    if empty:
        of_classes = "" if classes is None else " of these classes"
        missed = "" if task == "semantic" else f" reaches {settings.threshold_key}, {min_score}"
        run.console.print(f"nothing to draw in {empty} of them: no segment{of_classes}{missed}")
    run.status.write("RUNNING", "Inference finished.", kpi={"images": done})
    skipped.raise_any(f"the results of the other {done} are complete")


def _found(result: Result, min_score: float) -> bool:
    """Whether the drawing of a result shows anything."""
    if result.panoptic is not None:
        return bool(result.panoptic.segments)
    if result.semantic is not None:
        return bool((result.semantic > VOID).any())
    return any(instance.score >= min_score for instance in result.instance or ())


def _batches(
    policy: Callable[[Size], Geometry], paths: list[Path], batch_size: int, skipped: Skipped
) -> list[list[tuple[Path, Geometry]]]:
    """Images of one padded size; what is no image is skipped."""

    def sized() -> Iterator[tuple[Path, Geometry]]:
        for path in paths:
            with skipped.noted():
                yield path, policy(read_header(path).size)

    return of_one_size(sized(), batch_size)


def _predicted(
    model: Predictor,
    batches: list[list[tuple[Path, Geometry]]],
    batch_size: int,
    task: Task,
    policy: Callable[[Size], Geometry],
    skipped: Skipped,
) -> Iterator[list[tuple[Path, np.ndarray, Pending]]]:
    """Each batch when the next one has been started: a GPU computes that meanwhile."""
    before: list[tuple[Path, np.ndarray, Pending]] = []
    for batch in batches:
        if not (read := list(_read(batch, policy, skipped))):
            continue
        _, images, geometries = zip(*filled(read, batch_size), strict=True)
        results = model.pending_batch(images, geometries, [task])
        yield before
        before = [(path, image, result) for (path, image, _), result in zip(read, results, strict=False)]
    yield before


class _Seen:
    """What goes on beside the count of pictures: shapes are compiled, or tiles of a large picture done."""

    def __init__(self, model: Predictor) -> None:
        self._model, self._tiles = model, ""

    def __call__(self) -> str:
        return compiling(self._model) or self._tiles

    def tiles(self, done: int, of: int) -> None:
        """So many of a picture."""
        self._tiles = f"{done} of {of} tiles of a picture" if done < of else ""


def _shapes_in_windows(
    windows: Windows, policy: Callable[[Size], Geometry], paths: list[Path], batch_size: int, skipped: Skipped
) -> list[list[Geometry]]:
    """A batch of each shape that the windows of images have; what is no image is skipped."""
    found = dict[Geometry, None]()
    for path in paths:
        with skipped.noted(), of_any_size():
            found[window_geometry(read_header(path).size, windows, policy)] = None
    return [[geometry] * batch_size for geometry in found]


def _predicted_in_windows(
    in_windows: Callable[..., Result], paths: list[Path], skipped: Skipped, seen: _Seen
) -> Iterator[list[tuple[Path, np.ndarray, Pending]]]:
    """One image at a time: its windows are the batches."""
    for path in paths:
        image = None
        with skipped.noted(), of_any_size():
            image = read_image(path)
        if image is not None:
            yield [(path, image, partial(in_windows, picture=image, progress=seen.tiles))]


def _read(
    batch: list[tuple[Path, Geometry]], policy: Callable[[Size], Geometry], skipped: Skipped
) -> Iterator[tuple[Path, np.ndarray, Geometry]]:
    """The images that can be read."""
    for path, _ in batch:
        with skipped.noted():
            image = read_image(path)
            yield path, image, policy(image.shape[:2])
