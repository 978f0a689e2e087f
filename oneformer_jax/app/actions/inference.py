"""The inference action: a model and a folder of images in, overlays and raw results out. JAX only for a checkpoint."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from oneformer_jax.app.run.model import model_to_run, require_model
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings import data as datasets
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.data.datasets.images import list_images, read_image
from oneformer_jax.data.geometry import Geometry, Size
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.predict.write import ResultWriter

Item = tuple[Path, np.ndarray, Geometry]


def inference(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Writes the result of `inference.mode` for every image of `inference.images_dir` (else `dataset.test.images`).

    Raises OneFormerError: no model, no image, an unreadable image, a file that cannot be written.
    """
    require_model(spec, "inference")
    key = "inference.images_dir" if spec.inference.images_dir else "dataset.test.images"
    require(spec, key)
    sources = [local_folder(location, what=key) for location in datasets.path_list(spec.value(key))]
    paths = [path for source in sources for path in list_images(source)]
    chosen = model_to_run(spec, "inference", spec.dataset.test.batch_size, status)
    model, batch_size = chosen.model, chosen.batch_size
    task, thresholds = spec.inference.mode, scoring.thresholds(spec)
    policy = chosen.policy or partial(scoring.inference_geometry, spec)
    if chosen.policy and spec.is_set("inference.image_size"):
        status.warning(f"inference.image_size does not count: the engine takes images in a {chosen.policy.name}")
    with (
        ResultWriter(folder, task, model.categories, paths) as writer,
        Progress(console=console, disable=not console.is_terminal) as bar,
    ):
        progress = bar.add_task(f"inference ({task})", total=len(paths))
        for batch in _batches(policy, paths, batch_size):
            # A batch that is not full repeats its last image: every batch of one padded size has one shape.
            full = batch + batch[-1:] * (batch_size - len(batch))
            images, geometries = [item[1] for item in full], [item[2] for item in full]
            results = model.predict_batch(images, geometries, [task], thresholds)
            for (path, image, _), result in zip(batch, results, strict=False):
                writer.add(path, image, result)
            bar.advance(progress, len(batch))
    console.print(f"{len(paths)} images ({task}): {folder}", highlight=False)
    status.write("RUNNING", "Inference finished.", kpi={"images": len(paths)})


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
