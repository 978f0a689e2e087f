"""The export action: a checkpoint in, an ONNX file and its parity report out."""

import json
import logging
from itertools import islice
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import UInt8
from rich.console import Console

from oneformer_jax.app.run.execute import enable_compilation_cache
from oneformer_jax.app.run.status import StatusFile
from oneformer_jax.app.settings import evaluation as scoring
from oneformer_jax.app.settings.data import path_list
from oneformer_jax.app.settings.model import contradictions
from oneformer_jax.app.settings.model_keys import stated_fields
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.checkpoints.load import Checkpoint, load_checkpoint
from oneformer_jax.data.datasets.images import list_images, read_image
from oneformer_jax.data.geometry import STRIDE
from oneformer_jax.data.storage.cache import local_folder
from oneformer_jax.data.synthetic.drawn_shapes import draw_picture
from oneformer_jax.data.task_text import task_tokens
from oneformer_jax.errors import OneFormerError, SpecError
from oneformer_jax.predict.metadata import Metadata
from oneformer_jax.training.sharding import Mesh, make_mesh

PICTURES = 3
"""Real images that JAX and ONNX Runtime are compared on, one a task."""
LISTED = 10
"""Operators in the summary; all of them with export.verbose."""


def export(spec: Spec, folder: Path, status: StatusFile, console: Console) -> None:
    """Writes `export.onnx_file` (else model.onnx in the result folder), and report.json in the result folder.

    Raises OneFormerError: keys that do not fit, no checkpoint, a file that is there and may not be overwritten, or a
    graph that does not compute what JAX computes, which is kept under another name.
    """
    require(spec, "export.checkpoint")
    section = spec.export
    path = Path(section.onnx_file or folder / "model.onnx")
    _check(spec, path)
    try:
        from converters.onnx.export import export_model
        from converters.onnx.trace import OPSETS
    except ModuleNotFoundError as error:
        raise OneFormerError(f"{error.name} is not installed", hint="pip install 'oneformer_jax[export]'") from error
    if section.opset_version not in OPSETS:
        raise SpecError(
            f"opset {section.opset_version} is not available",
            where="export.opset_version",
            hint=f"give {OPSETS[0]} to {OPSETS[-1]}",
        )
    if not section.verbose:
        logging.getLogger("jax2onnx").setLevel(logging.WARNING)
    mesh = chosen_device(spec)
    enable_compilation_cache()
    model = load_checkpoint(section.checkpoint, device=mesh.local_devices[0])
    for contradiction in contradictions(stated_fields(spec), model.config):
        status.warning(contradiction)
    pictures = _pictures(spec, status)
    on_cuda = mesh.devices.flat[0].platform == "gpu"
    with console.status("tracing, checking and comparing"), jax.default_device(mesh.devices.flat[0]):
        exported = export_model(
            model.params,
            model.config,
            metadata=metadata_of(spec, model),
            path=path,
            opset=section.opset_version,
            ending=ending_of(spec),
            pictures=pictures,
            device="auto" if on_cuda else "cpu",
            device_id=section.gpu_id,
        )
    report = exported.to_json()
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    console.print(exported.parity.table())
    listed = dict(islice(exported.nodes.items(), None if section.verbose else LISTED))
    console.print(
        f"{sum(exported.nodes.values())} nodes: {', '.join(f'{count} {name}' for name, count in listed.items())}",
        f"{exported.megabytes:.1f} MB, opset {exported.opset}, {exported.seconds:.0f} s: {path}",
        sep="\n",
        highlight=False,
        soft_wrap=True,
    )
    agreement = {f"label_agreement_{kind}": share for kind, share in exported.parity.agreement.items()}
    status.write("RUNNING", "Export finished.", kpi={"megabytes": exported.megabytes, **agreement})


def chosen_device(spec: Spec) -> Mesh:
    """Where the comparison runs: the processor with `export.on_cpu`, else the device of `export.gpu_id`."""
    if spec.export.on_cpu:
        return Mesh(np.array(jax.devices("cpu")[:1]), make_mesh(1).axis_names)
    try:
        return make_mesh((spec.export.gpu_id,))
    except OneFormerError as error:
        raise SpecError(error.what, where="export.gpu_id", hint=error.hint) from None


def ending_of(spec: Spec) -> Any:
    """The `Ending` of a graph with post-processing, None without. Its task is `export.task` where that is set."""
    from converters.onnx.trace import Ending

    kind = spec.export.include_postprocess
    if kind == "none":
        return None
    return Ending(spec.export.task if spec.is_set("export.task") else kind, scoring.thresholds(spec))


def metadata_of(spec: Spec, model: Checkpoint) -> Metadata:
    """What the file will say about itself."""
    config, section = model.config, spec.export
    return Metadata(
        categories=model.categories,
        num_classes=config.num_classes,
        num_queries=config.transformer.num_queries,
        image_size=(section.input_height, section.input_width),
        batch_size=section.batch_size,
        pixel_mean=model.description.pixel_mean,
        pixel_std=model.description.pixel_std,
        task_pad_id=config.task_pad_id,
        task_tokens=tuple(map(tuple, task_tokens(config.task_pad_id, config.task_seq_len).tolist())),
        postprocess=section.include_postprocess,
        checkpoint=f"{Path(section.checkpoint).resolve()}, step {model.description.step}",
    )


def _check(spec: Spec, path: Path) -> None:
    """Raises before long work."""
    section = spec.export
    for name in ("input_height", "input_width"):
        if (edge := spec.value(f"export.{name}")) % STRIDE:
            larger = -(-edge // STRIDE) * STRIDE
            raise SpecError(f"{edge} is no multiple of {STRIDE}", where=f"export.{name}", hint=f"for example {larger}")
    if path.suffix != ".onnx":
        raise SpecError(f"'{path.name}' does not end in .onnx", where="export.onnx_file")
    if path.is_dir():
        raise SpecError("this is a folder", where=f"export.onnx_file: {path}")
    if path.exists() and not section.overwrite:
        raise OneFormerError(
            "exists already", where=str(path), hint="set export.overwrite=true, or another export.onnx_file"
        )


def _pictures(spec: Spec, status: StatusFile) -> list[UInt8[np.ndarray, "_h _w 3"]]:
    """The first images of the first split that has any on this machine; drawn ones where none has."""
    for key in ("dataset.test.images", "dataset.val.images", "dataset.train.images"):
        for location in path_list(spec.value(key)):
            if location and Path(location).exists():
                return [read_image(path) for path in list_images(local_folder(location, what=key))[:PICTURES]]
    status.warning("the spec names no images that are there: the file is compared with JAX on drawn pictures")
    size = max(spec.export.input_height, spec.export.input_width)
    return [draw_picture(size, np.random.default_rng(index))[0] for index in range(PICTURES)]
