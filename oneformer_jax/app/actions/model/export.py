"""The export action: a checkpoint in, an ONNX file and its parity report out."""

import logging
from dataclasses import replace
from itertools import islice
from pathlib import Path

import jax
import numpy as np

from converters.onnx.settings import ExportRun
from oneformer_jax.app.actions.model.compared import parity_table, pictures_of
from oneformer_jax.app.run.execute import Run
from oneformer_jax.app.run.opened import counting_categories, counting_thresholds
from oneformer_jax.app.run.waiting import waiting
from oneformer_jax.app.settings.model import contradiction
from oneformer_jax.checkpoints.read import Checkpoint, load_checkpoint
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.deploy.triton import check_repository, served_batches, write_repository
from oneformer_jax.errors import OneFormerError, SpecError, needs
from oneformer_jax.models.compiled_programs import enable_compilation_cache
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.training.sharding import Mesh, make_mesh

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
    if different := contradiction(settings.stated.architecture, model.config):
        run.status.warning(different)
    where, known = str(settings.checkpoint), model.description
    metadata = replace(
        metadata_of(settings, model),
        categories=counting_categories(known.categories, settings.stated, where, run),
        thresholds=counting_thresholds(known.thresholds, settings.stated, where, run),
    )
    if settings.triton:
        check_repository(settings.triton, metadata, served_batches(metadata), "export.triton_dir", settings.overwrite)
    pictures = pictures_of(settings.images, settings.image_size, run)
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
    run.console.print(parity_table(exported.parity))
    listed = dict(islice(exported.nodes.items(), None if settings.verbose else LISTED))
    run.console.print(
        f"{sum(exported.nodes.values())} nodes: {', '.join(f'{count} {name}' for name, count in listed.items())}",
        f"{exported.megabytes:.1f} MB, opset {exported.opset}, {exported.seconds:.0f} s: {path}",
        sep="\n",
    )
    if settings.triton:
        served = write_repository(settings.triton, path, metadata, served_batches(metadata), "any recent release")
        run.console.print(f"for Triton: {served}")
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
        mask_stride=config.backbone.finest_stride,
        checkpoint=f"{settings.checkpoint.resolve()}, step {model.description.step}",
    )


def _refuse_to_overwrite(path: Path, settings: ExportRun) -> None:
    if path.is_dir():
        raise SpecError("this is a folder", where=f"export.onnx_file: {path}")
    if path.exists() and not settings.overwrite:
        raise OneFormerError(
            "exists already", where=str(path), hint="set export.overwrite=true, or another export.onnx_file"
        )
