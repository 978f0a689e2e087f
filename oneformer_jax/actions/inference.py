"""The inference action: a checkpoint and a folder of images in, overlays and raw results out."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.progress import Progress

from oneformer_jax.actions import configure
from oneformer_jax.actions.architecture import contradictions
from oneformer_jax.actions.devices import mesh_of
from oneformer_jax.actions.status import StatusFile
from oneformer_jax.data.geometry import Geometry
from oneformer_jax.data.images import list_images, read_image
from oneformer_jax.data.storage import local_folder
from oneformer_jax.inference.predictor import load_model
from oneformer_jax.inference.writers import ResultWriter
from oneformer_jax.spec import Spec, require

Item = tuple[Path, np.ndarray, Geometry]


def inference(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Writes the result of `inference.mode` for every image of `inference.images_dir` (else `dataset.test.images`).

    Raises OneFormerError: no checkpoint, no image, an unreadable image, a file that cannot be written.
    """
    require(spec, "inference.checkpoint")
    key = "inference.images_dir" if spec.inference.images_dir else "dataset.test.images"
    require(spec, key)
    sources = [local_folder(location, what=key) for location in configure.path_list(spec.value(key))]
    paths = [path for source in sources for path in list_images(source)]
    mesh = mesh_of(spec, "inference", status)
    model = load_model(Path(spec.inference.checkpoint), mesh)
    for contradiction in contradictions(spec, model.config):
        status.warning(contradiction)
    task, thresholds = spec.inference.mode, configure.thresholds(spec)
    batch_size = spec.inference.batch_size if spec.inference.batch_size > 0 else spec.dataset.test.batch_size
    batch_size *= mesh.size
    with (
        ResultWriter(folder, task, model.categories, paths) as writer,
        Progress(console=console, disable=not console.is_terminal) as bar,
    ):
        progress = bar.add_task(f"inference ({task})", total=len(paths))
        for batch in _batches(spec, paths, batch_size):
            # A batch that is not full repeats its last image: every batch of one padded size has one shape.
            full = batch + batch[-1:] * (batch_size - len(batch))
            images, geometries = [item[1] for item in full], [item[2] for item in full]
            results = model.predict_batch(images, task, geometries, thresholds)
            for (path, image, _), result in zip(batch, results, strict=False):
                writer.add(path, image, result)
            bar.advance(progress, len(batch))
    console.print(f"{len(paths)} images ({task}): {folder}", highlight=False)
    status.write("RUNNING", "Inference finished.", kpi={"images": len(paths)})


def _batches(spec: Spec, paths: list[Path], batch_size: int) -> Iterator[list[Item]]:
    """Neighbours of one padded size, at most `batch_size` together."""
    batch: list[Item] = []
    for path in paths:
        image = read_image(path)
        geometry = configure.inference_geometry(spec, (image.shape[0], image.shape[1]))
        if batch and (len(batch) == batch_size or batch[0][2].padded != geometry.padded):
            yield batch
            batch = []
        batch.append((path, image, geometry))
    yield batch
