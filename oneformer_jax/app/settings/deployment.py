"""A spec to the settings of export, quantize and gen_trt_engine; what needs only keys is refused here. Free of JAX."""

from dataclasses import replace
from pathlib import Path

from converters.onnx.settings import OPSETS, Ending, ExportRun, QuantizationRun
from oneformer_jax.app.settings.evaluation import comparison_run, thresholds
from oneformer_jax.app.settings.model_choice import stated
from oneformer_jax.app.spec import Spec, require
from oneformer_jax.app.spec.dataset_keys import Dataset
from oneformer_jax.app.spec.field import path_list
from oneformer_jax.data.geometry import STRIDE
from oneformer_jax.deploy.tensorrt_build import BatchSizes, BuildSettings, Calibration, EngineRun
from oneformer_jax.errors import SpecError
from oneformer_jax.predict.exported import ENGINE_SUFFIXES

QUANTIZATION_IMAGES = "dataset.quant_calibration_dataset.images_dir"
ONNX_BACKEND = "modelopt.onnx"
ENGINE = "gen_trt_engine"


def export_run(spec: Spec, checkpoint: str = "") -> ExportRun:
    """What the section `export` says, with another `checkpoint` than its own where that is given.

    Raises SpecError: no checkpoint, a size, an operator set or a file name that there is not.
    """
    if not checkpoint:
        require(spec, "export.checkpoint")
    section, kind = spec.export, spec.export.include_postprocess
    for name in ("input_height", "input_width"):
        if (edge := spec.value(f"export.{name}")) % STRIDE:
            larger = -(-edge // STRIDE) * STRIDE
            what, hint = f"{edge} is not a multiple of {STRIDE}", f"for example {larger}"
            raise SpecError(what, where=f"export.{name}", hint=hint)
    if section.onnx_file and not section.onnx_file.endswith(".onnx"):
        raise SpecError(f"'{Path(section.onnx_file).name}' does not end in .onnx", where="export.onnx_file")
    if section.opset_version not in OPSETS:
        what, hint = f"opset {section.opset_version} is not available", f"give {OPSETS[0]} to {OPSETS[-1]}"
        raise SpecError(what, where="export.opset_version", hint=hint)
    ending = None
    if kind != "none":
        ending = Ending(section.task if spec.is_set("export.task") else kind, thresholds(spec), kind)
    return ExportRun(
        Path(checkpoint or section.checkpoint),
        Path(section.onnx_file) if section.onnx_file else None,
        (section.input_height, section.input_width),
        section.batch_size,
        section.opset_version,
        section.deformable_attention,
        ending,
        None if section.on_cpu else section.gpu_id,
        _compared_images(spec.dataset),
        section.overwrite,
        Path(section.triton_dir) if section.triton_dir else None,
        section.verbose,
        stated(spec),
    )


def quantization_run(spec: Spec) -> QuantizationRun:
    """Raises SpecError: no model, a backend for the other kind of model, no images where they are needed."""
    require(spec, "quantize.model_path")
    keys = spec.quantize
    is_graph = keys.model_path.endswith(".onnx")
    if is_graph != (keys.backend == ONNX_BACKEND):
        what = f"{keys.backend} quantizes {'checkpoints' if is_graph else 'ONNX files'}"
        hint = f"set it to {ONNX_BACKEND if is_graph else 'torchao'}"
        raise SpecError(f"{what}, {keys.model_path} is not one", where="quantize.backend", hint=hint)
    if keys.mode == "static_ptq":
        require(spec, QUANTIZATION_IMAGES)
    export = None
    if not is_graph and keys.mode == "static_ptq":  # into the folder of the run
        export = replace(export_run(spec, keys.model_path), path=None, ending=None, overwrite=True, triton=None)
    return QuantizationRun(
        Path(keys.model_path),
        comparison_run(spec),
        export,
        keys.backend,
        keys.mode,
        keys.algorithm,
        keys.layers,
        keys.skip_names,
        spec.value(QUANTIZATION_IMAGES),
        spec.dataset.val.batch_size,
        keys.device,
        keys.overwrite,
    )


def engine_run(spec: Spec) -> EngineRun:
    """Raises SpecError: no ONNX file, another suffix than engines have, batch sizes that contradict each other."""
    require(spec, f"{ENGINE}.onnx_file")
    section, keys = spec.gen_trt_engine, spec.gen_trt_engine.tensorrt
    path = Path(section.trt_engine) if section.trt_engine else None
    if path is not None and path.suffix not in ENGINE_SUFFIXES:
        hint = f"evaluate and inference recognise engines by {' or '.join(ENGINE_SUFFIXES)}"
        raise SpecError(f"'{path.name}' is not the name of an engine", where=f"{ENGINE}.trt_engine", hint=hint)
    calibration = keys.calibration
    return EngineRun(
        Path(section.onnx_file),
        path,
        section.gpu_id,
        keys.data_type,
        keys.layers_precision,
        _batch_sizes(spec),
        BuildSettings(
            workspace=keys.workspace_size,
            timing_cache=Path(section.timing_cache) if section.timing_cache else None,
            verbose=section.verbose,
        ),
        Calibration(
            tuple(folder for folder in path_list(calibration.cal_image_dir) if folder),
            Path(calibration.cal_cache_file) if calibration.cal_cache_file else None,
            calibration.cal_batch_size,
            calibration.cal_batches,
        ),
        section.overwrite,
        _compared_images(spec.dataset),
        section.verify_only,
        Path(section.triton_dir) if section.triton_dir else None,
    )


def _compared_images(data: Dataset) -> tuple[tuple[str, str], ...]:
    """Where there may be images that formulations of a model are compared on, by the keys that name them."""
    splits = {"test": data.test, "val": data.val, "train": data.train}
    found = ((f"dataset.{name}.images", place) for name, split in splits.items() for place in path_list(split.images))
    return tuple((key, location) for key, location in found if location)


def _batch_sizes(spec: Spec) -> BatchSizes | None:
    """The three keys of `tensorrt` where one of them is changed, else `batch_size` alone, else None."""
    one, keys = spec.gen_trt_engine.batch_size, spec.gen_trt_engine.tensorrt
    paths = [f"{ENGINE}.tensorrt.{name}_batch_size" for name in ("min", "opt", "max")]
    if not any(map(spec.is_changed, paths)):
        return (one, one, one) if one > 0 else None
    smallest, best, largest = keys.min_batch_size, keys.opt_batch_size, keys.max_batch_size
    if not spec.is_set(paths[1]):
        best = max(smallest, min(best, largest))
    if not smallest <= best <= largest:
        raise SpecError(f"{smallest}, {best} and {largest} are not in order", where=", ".join(paths))
    if one > 0 and not smallest <= one <= largest:
        what, hint = f"{one} does not lie between {smallest} and {largest}", f"leave it out, or change {paths[2]}"
        raise SpecError(what, where=f"{ENGINE}.batch_size", hint=hint)
    return smallest, best, largest
