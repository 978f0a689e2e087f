"""A model repository for NVIDIA's Triton Inference Server: one graph from pictures to results, ready to be served.

The configuration is that of Triton's model_config.proto. Nothing here needs JAX or Triton.
"""

import json
import shutil
from importlib.resources import files
from pathlib import Path

from oneformer_jax.errors import EngineError, SpecError
from oneformer_jax.predict.exported import ENGINE_SUFFIXES
from oneformer_jax.predict.metadata import ANY_BATCH, INPUTS, KEY, Metadata
from oneformer_jax.writing import appearing_in

LARGEST_BATCH = 8
"""Of an ONNX file that takes any; Triton wants a number."""
QUEUE_MICROSECONDS = 2000
"""How long a request may wait for others."""
TYPES = {
    "classes": "TYPE_INT32",
    "segment_ids": "TYPE_INT32",
    "labels": "TYPE_INT32",
    "scores": "TYPE_FP32",
    "masks": "TYPE_BOOL",
}


def name_of(metadata: Metadata) -> str:
    """The name that the server gives the model: a repository holds one for each kind of results."""
    return f"oneformer_{metadata.postprocess}"


def check_repository(folder: Path, metadata: Metadata, batch_sizes: tuple[int, int], key: str, overwrite: bool) -> None:
    """Raises OneFormerError before anything is built: logits in place of results, a smallest of the `batch_sizes` above
    1 where there are several, a model that is there and may not be replaced. `key` names the folder in the spec."""
    if metadata.postprocess == "none":
        hint = "export with export.include_postprocess=semantic, instance or panoptic"
        raise SpecError("a server needs a graph that takes pictures and returns results", where=key, hint=hint)
    smallest, largest = batch_sizes
    if 1 < smallest < largest:
        hint = "let the smallest be 1, or equal to the largest"
        what = f"a server cannot wait for {smallest} requests before it answers one"
        raise SpecError(what, where="gen_trt_engine.tensorrt.min_batch_size", hint=hint)
    target = folder / name_of(metadata)
    if target.exists() and not overwrite:
        hint = f"set {key.partition('.')[0]}.overwrite=true to replace it"
        raise EngineError("exists already", where=str(target), hint=hint)


def write_repository(folder: Path, model: Path, metadata: Metadata, batch_sizes: tuple[int, int], runs_on: str) -> Path:
    """Puts `oneformer_<results>/` into a repository: config.pbtxt, labels.txt, README.md, client.py and in `1/` a copy
    of the model, an ONNX file or an engine. `batch_sizes` are its smallest and largest; `runs_on`: what the server must
    have. Returns the folder of the model."""
    name = name_of(metadata)
    with appearing_in(folder, name) as fresh:
        of_model = fresh / name
        (of_model / "1").mkdir(parents=True)
        for file in (model, model.with_name(f"{model.name}.data")):  # weights that are too many for one file
            if file == model or (model.suffix == ".onnx" and file.exists()):
                shutil.copyfile(file, of_model / "1" / file.name)
        (of_model / "config.pbtxt").write_text(configuration(model, metadata, batch_sizes), encoding="utf-8")
        names = "".join(f"{' '.join(category.name.split())}\n" for category in metadata.categories.items)
        (of_model / "labels.txt").write_text(names, encoding="utf-8")
        (of_model / "README.md").write_text(_readme(name, runs_on), encoding="utf-8")
        client = files(__package__).joinpath("triton_client.py").read_text(encoding="utf-8")
        (of_model / "client.py").write_text(client, encoding="utf-8")
    return folder / name


def configuration(model: Path, metadata: Metadata, batch_sizes: tuple[int, int]) -> str:
    """config.pbtxt. Requests are put together into batches where the model takes several sizes; one of a fixed batch
    gets whole batches."""
    smallest, largest = batch_sizes
    is_dynamic = smallest != largest
    whole_batch = () if is_dynamic or largest == 1 else (largest,)
    height, width = metadata.image_size
    lines = [
        f"name: {_quoted(name_of(metadata))}",
        f'backend: "{"tensorrt" if model.suffix in ENGINE_SUFFIXES else "onnxruntime"}"',
        f"default_model_filename: {_quoted(model.name)}",
        f"max_batch_size: {0 if whole_batch else largest}",
        "input [",
        _tensor(INPUTS[0], "TYPE_UINT8", (*whole_batch, height, width, 3)),
        "]",
        "output [",
        ",\n".join(
            _tensor(output, TYPES[output], (*whole_batch, *_shape(output, metadata))) for output in metadata.outputs
        ),
        "]",
    ]
    if is_dynamic:
        lines.append(f"dynamic_batching {{ max_queue_delay_microseconds: {QUEUE_MICROSECONDS} }}")
    about = json.dumps(metadata.to_json())
    lines.append(f"parameters {{ key: {_quoted(KEY)} value {{ string_value: {_quoted(about)} }} }}")
    return "\n".join(lines) + "\n"


def served_batches(metadata: Metadata) -> tuple[int, int]:
    """The smallest and the largest batch of an ONNX file on a server."""
    size = metadata.batch_size
    return (1, LARGEST_BATCH) if size == ANY_BATCH else (size, size)


def _shape(output: str, metadata: Metadata) -> tuple[int, ...]:
    """Of one image."""
    pairs = min(metadata.thresholds.test_topk_per_image, metadata.num_queries * metadata.num_classes)
    entries = pairs if metadata.postprocess == "instance" else metadata.num_queries
    return {
        "classes": metadata.image_size,
        "segment_ids": metadata.image_size,
        "labels": (entries,),
        "scores": (entries,),
        "masks": (entries, *metadata.image_size),
    }[output]


def _tensor(name: str, kind: str, shape: tuple[int, ...]) -> str:
    return f"  {{ name: {_quoted(name)} data_type: {kind} dims: [ {', '.join(map(str, shape))} ] }}"


def _quoted(text: str) -> str:
    """Text as protobuf's text format has it."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def _readme(name: str, runs_on: str) -> str:
    return f"""# {name}

A model for NVIDIA's Triton Inference Server, with its client. It needs {runs_on}. In the folder that holds `{name}/`:

```
docker run --rm --gpus all -p 8001:8001 -v "$PWD:/models" nvcr.io/nvidia/tritonserver:<release>-py3 \\
    tritonserver --model-repository=/models
```

(without `--gpus all` an ONNX file runs on the processor), and then, with `pip install 'tritonclient[grpc]' pillow`:

```
python {name}/client.py {name} photo.jpg result.png
```

`labels.txt` has a class name a line, in the order of the class numbers. `config.pbtxt` says how many pictures are put
into one batch and how long a request waits for others; what the model is stands there as JSON, under `parameters`.
"""
