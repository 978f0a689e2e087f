"""The inference action: a model and a folder of images in, overlays and raw results out. JAX only for a checkpoint."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import Skipped, counting_categories, open_model
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.data.datasets.images import list_images, read_header, read_image
from oneformer_jax.data.geometry import Geometry, Letterbox, Policy, Size
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.predict.runs import InferenceRun
from oneformer_jax.predict.write import ResultWriter, earlier_results

Item = tuple[Path, np.ndarray, Geometry]


def inference(settings: InferenceRun, run: Run) -> None:
    """Writes the result of the task for every image.

    Raises OneFormerError: no model, no image, a file that cannot be written, a folder that holds the results of other
    images; at the end, where images cannot be read and were left out.
    """
    folders = [local_folder(location, what=settings.images_key) for location in settings.images]
    paths = [path for folder in folders for path in list_images(folder)]
    task, skipped = settings.task, Skipped(run.status)
    earlier = earlier_results(run.folder, task, paths)
    model, batch_size = open_model(settings.model, settings.batch_size, run)
    if earlier:
        run.status.warning(f"{len(earlier)} files of an earlier run are replaced: {run.folder / task}")
    model = replace(model, categories=counting_categories(model.categories, settings.model.stated, model.path, run))
    size = model.image_size or settings.image_size
    policy: Policy = Letterbox(size) if size else settings.policy
    if model.image_size and settings.image_size:
        run.status.warning(f"inference.image_size has no effect: the engine takes images in a {policy.name}")
    min_score = model.thresholds.object_mask_threshold
    with (
        ResultWriter(run.folder, task, model.categories, paths, min_score) as writer,
        waiting(f"inference ({task})", run.console, len(paths)) as count,
    ):
        done = 0
        for batch in filter(None, _batches(policy, paths, batch_size, skipped)):
            # A batch that is not full repeats its last image: every batch of one padded size has one shape.
            full = batch + batch[-1:] * (batch_size - len(batch))
            images, geometries = [item[1] for item in full], [item[2] for item in full]
            results = model.predict_batch(images, geometries, [task], model.thresholds)
            for (path, image, _), result in zip(batch, results, strict=False):
                writer.add(path, image, result)
            done += len(batch)
            count(done)
    run.console.print(f"{done} images ({task}): {run.folder / task}")
    run.status.write("RUNNING", "Inference finished.", kpi={"images": done})
    skipped.raise_any(f"the results of the other {done} are complete")


def _batches(
    policy: Callable[[Size], Geometry], paths: list[Path], batch_size: int, skipped: Skipped
) -> Iterator[list[Item]]:
    """Images of one padded size, `batch_size` together while there are so many: paths wait for others like them. What
    cannot be read is skipped."""
    alike: dict[Size, list[Path]] = {}

    def batch(size: Size) -> list[Item]:
        items = []
        for path in alike.pop(size):
            with skipped.noted():
                image = read_image(path)
                items.append((path, image, policy(image.shape[:2])))
        return items

    for path in paths:
        with skipped.noted():
            size = policy(read_header(path).size).padded
            alike.setdefault(size, []).append(path)
        yield from (batch(full) for full in list(alike) if len(alike[full]) == batch_size)
    yield from map(batch, list(alike))
