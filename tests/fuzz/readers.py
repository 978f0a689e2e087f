"""Every reader of files that people bring, with a file that it reads: a line of `READERS` each.

`python tests/fuzz/readers.py NAME FIRST COUNT` damages that file so many times, from a seed on, within the bounds that
every reader keeps: 10 seconds, and 1 GB of memory over the file's own size. It prints what broke them as JSON.
"""

import json
import os
import pickle
import random
import resource
import shutil
import signal
import sys
import tarfile
import time
import traceback
import warnings
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from damage import damaged
from PIL import Image

from oneformer_jax.errors import OneFormerError

SECONDS, MEMORY = 10, 2**30


@dataclass(frozen=True)
class Reader:
    """`make` writes what `read` reads into an empty folder, and returns the files of it that are damaged in turn."""

    make: Callable[[Path], Sequence[Path]]
    read: Callable[[Path], Any]


@dataclass(frozen=True)
class Broken:
    """What a seed broke, and how."""

    reader: str
    seed: int
    file: str
    how: str


def fuzz(name: str, seeds: range, folder: Path, *, bounded: bool = False) -> list[Broken]:
    """Damages the files of a reader once for each seed, reads them, and makes them whole again.

    `bounded`: with a limit to the memory of this process, which a library may answer by ending it.
    """
    reader = READERS[name]
    whole = {path: path.read_bytes() for path in reader.make(folder)}
    reader.read(folder)  # as it is, it can be read
    broken = []
    for seed in seeds:
        rng = random.Random(f"{name} {seed}")
        path = rng.choice(sorted(whole))
        path.write_bytes(damaged(whole[path], rng))
        if (how := _outcome(reader, folder, path.stat().st_size if bounded else None)) is not None:
            broken.append(Broken(name, seed, path.name, how))
        path.write_bytes(whole[path])
    return broken


def _outcome(reader: Reader, folder: Path, size: int | None) -> str | None:
    """None where the reader does what it should."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    if size is not None:
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + size + MEMORY, before[1]))
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(SECONDS)
    start = time.monotonic()
    try:
        with warnings.catch_warnings(action="ignore"):
            reader.read(folder)
    except OneFormerError as error:
        if len(str(error)) > 100_000:
            return f"a message of {len(str(error))} characters"
    except BaseException:
        return "".join(traceback.format_exc().splitlines(keepends=True)[-12:])
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, before)
    taken = time.monotonic() - start
    return f"it took {taken:.1f} s" if taken > SECONDS else None


def _too_long(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


# What makes and reads each kind of file.

CATEGORIES = [{"id": k, "name": f"class {k}", "isthing": k % 2, "color": [k, k, k]} for k in (1, 2, 3)]
SPEC = """results_dir: /tmp/results
encryption_key: tlt_encode
model: {backbone: {swin: &swin {embed_dim: 96, depths: [2, 2, 6, 2]}}, sem_seg_head: {num_classes: 3}}
dataset:
  train: {images: '${results_dir}/images', annotations: [a.json, b.json], batch_size: 2}
  label_map: {coco_panoptic: p.json, '*': map.json}
train: {optim: {lr: 1e-4, milestones: [1, 2]}, num_epochs: 3, precision: bf16-mixed}
"""
OVERRIDES = "train.optim.lr=1e-4\n~train.seed\n+dataset.train={images: a}"


def _written(path: Path, content: str | bytes) -> list[Path]:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return [path]


def _spec(folder: Path) -> Any:
    from oneformer_jax.app.spec import dump_yaml, load_spec

    return dump_yaml(load_spec(folder / "spec.yaml"))


def _override(folder: Path) -> Any:
    from oneformer_jax.app.spec import load_spec

    return load_spec(None, (folder / "overrides.txt").read_bytes().decode(errors="replace").split("\n"))


def _coco(folder: Path, annotations: list[Any]) -> list[Path]:
    for k in (1, 2):
        Image.new("RGB", (10, 8)).save(folder / f"{k}.png")
    ids = np.zeros((8, 10, 3), np.uint8)
    ids[:4, :, 0] = 5
    (folder / "panoptic").mkdir()
    for k in (1, 2):
        Image.fromarray(ids).save(folder / "panoptic" / f"{k}.png")
    images = [{"id": k, "file_name": f"{k}.png", "height": 8, "width": 10} for k in (1, 2)]
    content = {"images": images, "annotations": annotations, "categories": CATEGORIES}
    return _written(folder / "annotations.json", json.dumps(content))


def _panoptic(folder: Path) -> list[Path]:
    segments = [{"id": 5, "category_id": 1, "iscrowd": 0, "area": 40, "bbox": [0, 0, 10, 4]}]
    records = [{"image_id": k, "file_name": f"{k}.png", "segments_info": segments} for k in (1, 2)]
    return [*_coco(folder, records), folder / "panoptic" / "1.png"]


def _instances(folder: Path) -> list[Path]:
    polygon, lengths = [[1, 1, 5, 1, 4.5, 6]], {"size": [8, 10], "counts": [26, *[4, 4] * 5, 4, 10]}
    return _coco(
        folder,
        [
            {"id": k, "image_id": 1, "category_id": 1, "iscrowd": k % 2, "segmentation": shape, "bbox": [1, 1, 4, 5]}
            for k, shape in enumerate((polygon, lengths))
        ],
    )


def _dataset(panoptic: bool) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        from oneformer_jax.data.datasets.sources import Source, open_sources

        dataset = open_sources([Source(folder / "annotations.json", folder, folder / "panoptic" if panoptic else None)])
        return [(dataset.read_image(i), dataset.read_segments(i)) for i in range(len(dataset))]

    return read


def _label_map(folder: Path) -> Any:
    from oneformer_jax.data.datasets.categories import load_label_map

    return load_label_map(folder / "map.json").colors


def _pictures(folder: Path) -> list[Path]:
    rng = np.random.default_rng(0)
    picture = Image.fromarray(rng.integers(0, 256, (12, 16, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, image, options in (
        ("a.jpg", picture, {"exif": exif}),
        ("b.png", picture.convert("P"), {}),
        ("c.tif", Image.fromarray(rng.integers(0, 2**16, (12, 16)).astype(np.uint16)), {}),
        ("d.webp", picture, {}),
        ("e.gif", picture.convert("P"), {}),
        ("f.bmp", picture, {}),
    ):
        image.save(folder / name, **options)
    return sorted(folder.iterdir())


def _read_pictures(folder: Path) -> Any:
    from oneformer_jax.data.datasets.images import read_header, read_image

    broken = None
    for path in sorted(folder.iterdir()):
        try:
            read_header(path)
            read_image(path)
        except OneFormerError as error:
            broken = error
    if broken is not None:
        raise broken
    return None


def _archives(folder: Path) -> list[Path]:
    (folder / "a.txt").write_bytes(os.urandom(300))
    for name, kind in (("x.tar.gz", "gz"), ("x.tar.xz", "xz"), ("x.tar.bz2", "bz2"), ("x.tar", "")):
        with tarfile.open(folder / name, f"w:{kind}") as archive:  # type: ignore[call-overload]
            archive.add(folder / "a.txt", "deep/a.txt")
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "deep/a.txt"
            archive.addfile(link)
    with zipfile.ZipFile(folder / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.write(folder / "a.txt", "deep/a.txt")
    return sorted(folder.glob("x.*"))


def _unpack(folder: Path) -> Any:
    from oneformer_jax.data.storage.archives import unpack

    for path in sorted(folder.glob("x.*")):
        (folder / "out").mkdir()
        try:
            unpack(path, folder / "out")
        finally:
            shutil.rmtree(folder / "out")


def _weights(folder: Path) -> list[Path]:
    import torch
    from safetensors.numpy import save_file

    state = {"a": torch.ones(3, 2), "b": {"c": torch.arange(4)}, "n": 3}
    wrapped = {"state_dict": {"w": state["a"], "h": torch.ones(2).half()}, "epoch": 1, "args": {"lr": 0.1}}
    torch.save(wrapped, folder / "zip.pth")
    torch.save(wrapped, folder / "old.pth", _use_new_zipfile_serialization=False)
    (folder / "numpy.pkl").write_bytes(pickle.dumps({"model": {"w": np.ones(3, np.float32)}, "x": [1, (2, {3})]}, 2))
    save_file({"w": np.ones((2, 3), np.float32), "v": np.ones(4, np.float16)}, folder / "x.safetensors")
    return sorted(folder.iterdir())


def _read_weights(folder: Path) -> Any:
    from converters.files.read import read_source

    for path in sorted(folder.iterdir()):
        for array in read_source(path).arrays.values():
            np.asarray(array).sum()


def _hub(folder: Path) -> list[Path]:
    from safetensors.numpy import save_file

    save_file({"w": np.ones((2, 3), np.float32)}, folder / "part.safetensors")
    info = {str(k): {"name": f"class {k}", "isthing": k % 2} for k in range(3)}
    for name, content in {
        "model.safetensors.index.json": {"weight_map": {"w": "part.safetensors"}, "metadata": {}},
        "config.json": {"id2label": {"0": "a", "1": "b"}, "num_attention_heads": 8, "backbone_config": {"depths": [2]}},
        "preprocessor_config.json": {"class_info_file": "info.json", "metadata": {"0": "a", "thing_ids": [0]}},
        "info.json": info,
    }.items():
        (folder / name).write_text(json.dumps(content))
    return sorted(folder.iterdir())


def _read_hub(folder: Path) -> Any:
    from converters.files.read import read_classes, read_source
    from converters.huggingface_config import check_built_in, class_names
    from oneformer_jax.data.datasets.categories import Categories

    source = read_source(folder)
    told = read_classes(folder)
    check_built_in(source.config or {}, is_backbone=False, where=str(folder))
    return class_names(source.config or {}, 2, where=str(folder)), told is None or Categories.from_json(told)


def _metadata(folder: Path) -> list[Path]:
    from oneformer_jax.data.datasets.categories import Categories
    from oneformer_jax.predict.metadata import Metadata, write_sidecar

    categories = Categories.from_json(CATEGORIES)
    tokens = ((1, 2), (3, 4), (5, 6))
    metadata = Metadata(categories, 3, 10, (64, 64), -1, (1.0,) * 3, (2.0,) * 3, 0, tokens, "runs/best")
    return [write_sidecar(folder / "model.engine", metadata, builder="10.3")]


def _read_metadata(folder: Path) -> Any:
    from oneformer_jax.predict.metadata import KEY, metadata_of, read_sidecar

    text = (folder / "model.engine.json").read_bytes().decode(errors="replace")
    metadata_of({KEY: text}, where="model.onnx").is_thing.sum()
    return read_sidecar(folder / "model.engine")[0].tokens_of("panoptic")


def _description(folder: Path) -> list[Path]:
    from oneformer_jax.checkpoints.description import Description, Training
    from oneformer_jax.data.datasets.categories import Categories
    from oneformer_jax.models.config import OneFormerConfig

    training = Training(100, 4, "mIoU", 1, {"epochs": 3})
    model, categories = OneFormerConfig(), Categories.from_json(CATEGORIES)
    description = Description(model, categories, (1.0,) * 3, (2.0,) * 3, {"train": {"seed": 1}}, training=training)
    content = json.dumps(description.to_json(), default=lambda value: vars(value))
    return _written(folder / "description.json", content)


def _read_description(folder: Path) -> Any:
    from oneformer_jax.checkpoints.description import Description
    from oneformer_jax.stored import read_json

    return Description.from_json(read_json(folder / "description.json"), where="runs/best").to_json()


def _prepared(folder: Path) -> list[Path]:
    from oneformer_jax.data.datasets.sources import Source, open_sources
    from oneformer_jax.data.datasets.tfds_builder import prepare

    (folder / "raw").mkdir()
    _panoptic(folder / "raw")
    source = Source(folder / "raw" / "annotations.json", folder / "raw", folder / "raw" / "panoptic")
    prepare({"train": open_sources([source])}, folder / "data")
    return sorted(path for path in (folder / "data").iterdir() if path.is_file())


def _read_prepared(folder: Path) -> Any:
    from oneformer_jax.data.datasets.tfds_dataset import PreparedDataset, stored_sizes

    stored_sizes(folder / "data")
    dataset = PreparedDataset(folder / "data", "train")
    return [(dataset.records[i], dataset.read(i)) for i in range(len(dataset))]


def _job(folder: Path) -> list[Path]:
    from oneformer_jax.app.jobs.workspace import Job, Record

    job = Job(folder / "train-1")
    record = Record("train", "train", datasets={"train_datasets": "/data"}, kpi={"mIoU": 0.5}, exit_code=0)
    job.results(record).mkdir(parents=True)
    job.write(record)
    status = {"status": "SUCCESS", "message": "Done.", "kpi": {"mIoU": 0.5}}
    return [
        job.record_path,
        *_written(job.spec_path, SPEC),
        *_written(job.results(record) / "status.json", json.dumps(status) + "\n"),
        *_written(folder / "train-1" / ".lock", "process 1 on host\n"),
    ]


def _read_job(folder: Path) -> Any:
    from oneformer_jax.app.cli.job_commands import table_of
    from oneformer_jax.app.jobs.plan import resumed_spec
    from oneformer_jax.app.jobs.run import state
    from oneformer_jax.app.jobs.workspace import Workspace
    from oneformer_jax.app.run.screen import nothing

    nothing().print(table_of(Workspace(folder)))
    job = Workspace(folder).job("train-1")
    return resumed_spec(job, state(job))


def _study(folder: Path) -> list[Path]:
    _open_study(folder)
    return [folder / "study.db"]


def _open_study(folder: Path) -> Any:
    from oneformer_jax.app.automl.request import SearchSettings
    from oneformer_jax.app.automl.study import Study

    settings = SearchSettings("random", "maximize", 3, 2)
    return Study(settings, (), {}, file=folder / "study.db", identity={"a": 1}).records()


READERS: dict[str, Reader] = {
    "spec": Reader(lambda folder: _written(folder / "spec.yaml", SPEC), _spec),
    "override": Reader(
        lambda folder: _written(folder / "overrides.txt", OVERRIDES),
        _override,
    ),
    "panoptic annotations": Reader(_panoptic, _dataset(panoptic=True)),
    "instance annotations": Reader(_instances, _dataset(panoptic=False)),
    "label map": Reader(lambda folder: _written(folder / "map.json", json.dumps(CATEGORIES)), _label_map),
    "pictures": Reader(_pictures, _read_pictures),
    "archives": Reader(_archives, _unpack),
    "weights": Reader(_weights, _read_weights),
    "hub folder": Reader(_hub, _read_hub),
    "exported metadata": Reader(_metadata, _read_metadata),
    "checkpoint description": Reader(_description, _read_description),
    "prepared data": Reader(_prepared, _read_prepared),
    "job": Reader(_job, _read_job),
    "study": Reader(_study, _open_study),
}
SLOW = {"study": 0.05, "prepared data": 0.3, "archives": 0.5, "weights": 0.5}
"""How many files of a kind that takes longer are damaged, for one of the others."""


if __name__ == "__main__":
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        name, (first, number) = sys.argv[1], map(int, sys.argv[2:])
        found = fuzz(name, range(first, first + number), Path(place), bounded=True)
    print(json.dumps([vars(broken) for broken in found]))
