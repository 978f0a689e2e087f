"""The export action: a checkpoint in, an ONNX file and its parity report out."""

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import UInt8
from rich.table import Table

from converters.onnx.settings import ExportRun
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import counting_categories, counting_thresholds
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.model import contradictions
from oneformer_jax.checkpoints.read import Checkpoint, load_checkpoint
from oneformer_jax.data.datasets.images import list_images, read_image
from oneformer_jax.data.drawn_shapes import draw_picture
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import OneFormerError, SpecError, needs
from oneformer_jax.models.compiled_programs import enable_compilation_cache
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.training.sharding import Mesh, make_mesh

if TYPE_CHECKING:
    from converters.onnx.parity import Parity  # imports onnx, which is an extra

PICTURES = 3
"""Real images that JAX and ONNX Runtime are compared on, one a task."""
LISTED = 10
"""Operators in the summary; all of them where the settings are verbose."""


def export(settings: ExportRun, run: Run) -> Path:
    """Writes the ONNX file, which is returned, and report.json in the folder of the run.

    Raises OneFormerError: no checkpoint, no such device, a file that is there and may not be overwritten, or a graph
    that does not compute what JAX computes, which is kept under another name.
    """
    path = settings.path or run.folder / "model.onnx"
    _refuse_to_overwrite(path, settings)
    with needs("export"):
        from converters.onnx.export import export_model

    if not settings.verbose:
        logging.getLogger("jax2onnx").setLevel(logging.WARNING)
    mesh = chosen_device(settings)
    enable_compilation_cache()
    model = load_checkpoint(settings.checkpoint, device=mesh.local_devices[0])
    for contradiction in contradictions(settings.stated.architecture, model.config):
        run.status.warning(contradiction)
    where, known = str(settings.checkpoint), model.description
    metadata = replace(
        metadata_of(settings, model),
        categories=counting_categories(known.categories, settings.stated, where, run),
        thresholds=counting_thresholds(known.thresholds, settings.stated, where, run),
    )
    pictures = _pictures(settings, run)
    on_cuda = mesh.devices.flat[0].platform == "gpu"
    with waiting("tracing, checking and comparing", run.console), jax.default_device(mesh.devices.flat[0]):
        exported = export_model(
            model.params,
            model.config,
            metadata=metadata,
            path=path,
            opset=settings.opset,
            sampling=settings.sampling,
            ending=settings.ending and replace(settings.ending, thresholds=metadata.thresholds),
            pictures=pictures,
            device="auto" if on_cuda else "cpu",
            device_id=settings.device or 0,
            report=run.folder / "report.json",
        )
    run.console.print(_table(exported.parity))
    listed = dict(islice(exported.nodes.items(), None if settings.verbose else LISTED))
    run.console.print(
        f"{sum(exported.nodes.values())} nodes: {', '.join(f'{count} {name}' for name, count in listed.items())}",
        f"{exported.megabytes:.1f} MB, opset {exported.opset}, {exported.seconds:.0f} s: {path}",
        sep="\n",
    )
    agreement = {f"label_agreement_{kind}": share for kind, share in exported.parity.agreement.items()}
    run.status.write("RUNNING", "Export finished.", kpi={"megabytes": exported.megabytes, **agreement})
    return path


def chosen_device(settings: ExportRun) -> Mesh:
    """Where the comparison runs."""
    if settings.device is None:
        return Mesh(np.array(jax.devices("cpu")[:1]), make_mesh(1).axis_names)
    try:
        return make_mesh((settings.device,))
    except OneFormerError as error:
        raise SpecError(error.what, where="export.gpu_id", hint=error.hint) from None


def metadata_of(settings: ExportRun, model: Checkpoint) -> Metadata:
    """What the file will say about itself."""
    config = model.config
    return Metadata(
        categories=model.categories,
        num_classes=config.num_classes,
        num_queries=config.transformer.num_queries,
        image_size=settings.image_size,
        batch_size=settings.batch_size,
        pixel_mean=model.description.pixel_mean,
        pixel_std=model.description.pixel_std,
        task_pad_id=config.task_pad_id,
        task_tokens=tuple(map(tuple, task_tokens(config.task_pad_id, config.task_seq_len).tolist())),
        postprocess=settings.postprocess,
        thresholds=model.description.thresholds,
        checkpoint=f"{settings.checkpoint.resolve()}, step {model.description.step}",
    )


def _refuse_to_overwrite(path: Path, settings: ExportRun) -> None:
    if path.is_dir():
        raise SpecError("this is a folder", where=f"export.onnx_file: {path}")
    if path.exists() and not settings.overwrite:
        raise OneFormerError(
            "exists already", where=str(path), hint="set export.overwrite=true, or another export.onnx_file"
        )


def _pictures(settings: ExportRun, run: Run) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """The first images at the first location that is on this machine; drawn ones where none is."""
    for key, location in settings.images:
        if Path(location).exists():
            return [read_image(path) for path in list_images(local_folder(location, what=key))[:PICTURES]]
    run.status.warning("the spec names no existing images: the file is compared with JAX on drawn pictures")
    size = max(settings.image_size)
    return [draw_picture(size, np.random.default_rng(index))[0] for index in range(PICTURES)]


def _table(parity: "Parity") -> Table:
    table = Table("", "largest difference", "mean difference", "largest entry", "within 1e-3 of it", title="parity")
    for name, difference in parity.differences.items():
        numbers = (f"{x:.3g}" for x in (difference.largest, difference.mean, difference.scale))
        table.add_row(name, *numbers, f"{100 * difference.within:.3f} %")
    for name, share in parity.agreement.items():
        table.add_row(f"label map, {parity.images[name]} {name} images", "", "", "", f"{100 * share:.3f} % equal")
    return table
