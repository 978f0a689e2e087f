"""The inference action: a model and a folder of images in, overlays and raw results out. JAX only for a checkpoint."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import Progress

from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import counting_categories, open_model
from oneformer_jax.data.datasets.images import list_images, read_image
from oneformer_jax.data.geometry import Geometry, Letterbox, Policy, Size
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.predict.runs import InferenceRun
from oneformer_jax.predict.write import ResultWriter

Item = tuple[Path, np.ndarray, Geometry]


def inference(settings: InferenceRun, run: Run) -> None:
    """Writes the result of the task for every image.

    Raises OneFormerError: no model, no image, an unreadable image, a file that cannot be written.
    """
    folders = [local_folder(location, what=settings.images_key) for location in settings.images]
    paths = [path for folder in folders for path in list_images(folder)]
    model, batch_size = open_model(settings.model, settings.batch_size, run)
    model = replace(model, categories=counting_categories(model.categories, settings.model.stated, model.path, run))
    size = model.image_size or settings.image_size
    policy: Policy = Letterbox(size) if size else settings.policy
    if model.image_size and settings.image_size:
        run.status.warning(f"inference.image_size has no effect: the engine takes images in a {policy.name}")
    task = settings.task
    with (
        ResultWriter(run.folder, task, model.categories, paths) as writer,
        Progress(console=run.console, disable=not run.console.is_terminal) as bar,
    ):
        progress = bar.add_task(f"inference ({task})", total=len(paths))
        for batch in _batches(policy, paths, batch_size):
            # A batch that is not full repeats its last image: every batch of one padded size has one shape.
            full = batch + batch[-1:] * (batch_size - len(batch))
            images, geometries = [item[1] for item in full], [item[2] for item in full]
            results = model.predict_batch(images, geometries, [task], model.thresholds)
            for (path, image, _), result in zip(batch, results, strict=False):
                writer.add(path, image, result)
            bar.advance(progress, len(batch))
    run.console.print(f"{len(paths)} images ({task}): {run.folder}", highlight=False)
    run.status.write("RUNNING", "Inference finished.", kpi={"images": len(paths)})


def _batches(policy: Callable[[Size], Geometry], paths: list[Path], batch_size: int) -> Iterator[list[Item]]:
    """Neighbours of one padded size, at most `batch_size` together."""
    batch: list[Item] = []
    for path in paths:
        image = read_image(path)
        geometry = policy((image.shape[0], image.shape[1]))
        if batch and (len(batch) == batch_size or batch[0][2].padded != geometry.padded):
            yield batch
            batch = []
        batch.append((path, image, geometry))
    yield batch
