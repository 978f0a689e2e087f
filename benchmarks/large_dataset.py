"""Training on a large data set: how soon it starts, what memory it holds, and whether it keeps compiling.

    python -m benchmarks.large_dataset --folder DIR                 # 100,000 images, 2,000,000 segments, 2,000 steps
    python -m benchmarks.large_dataset --folder DIR --form shards   # the same, prepared as ArrayRecord

The pictures are made in DIR, where they stay, and are small, as is the model: what is measured grows with the number of
images and segments, not with their pixels. The run is the train action itself, its files unchecked before.
"""

import argparse
import os
import tempfile
import time
from datetime import date
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from benchmarks import command, comparison
from benchmarks.machine import describe, peak_memory_mib
from benchmarks.mosaics import CLASSES, write_mosaics

IMAGES, STEPS = 100_000, 2_000
SIDE = 32  # pixels of a picture
COMPILATION = "/jax/core/compile/backend_compile_duration"

SPEC = f"""
model:
  backbone: {{swin: {{embed_dim: 8, depths: [1, 1, 1, 1], num_heads: [1, 1, 2, 2], window_size: 4, mlp_ratio: 2.0}}}}
  sem_seg_head: {{num_classes: {CLASSES}, convs_dim: 64, mask_dim: 64, transformer_enc_layers: 1}}
  one_former:
    {{hidden_dim: 64, nheads: 2, num_object_queries: 48, dim_feedforward: 32, dec_layers: 2, class_dec_layers: 1,
      train_num_points: 64}}
  text_encoder: {{width: 64, num_layers: 1, n_ctx: 2, proj_num_layers: 1}}
dataset:
  train: {{batch_size: 4}}
  augmentation: {{train_crop_size: [64, 64]}}
  task_prob_train: {{semantic: 1, instance: 1, panoptic: 1}}
"""


def segments_of(image: int) -> int:
    """8 to 32 segments, 20 on average."""
    return 8 + image % 25


class Step(NamedTuple):
    """What is seen between a step's forward pass and its losses: seconds since the start, slots to which the
    matched pairs are padded, compilations so far, resident MiB."""

    seconds: float
    slots: int
    compilations: int
    memory_mib: float


class Training:
    """The train action, observed from inside its process."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.steps: list[Step] = []
        self.compilations = 0
        self.peak_mib = 0.0  # of the start

    def run(self, spec: Path, overrides: list[str]) -> tuple[list[Step], float, float]:
        """The steps, and the most memory that was held until the first of them and at all."""
        import jax
        from rich.console import Console

        from oneformer_jax.app.actions.train.train import train
        from oneformer_jax.app.run.execute import running
        from oneformer_jax.app.settings.training import training_run
        from oneformer_jax.training import step

        original = step.pair_slots

        def observed(*arguments: Any) -> int:
            slots = original(*arguments)
            self.peak_mib = self.peak_mib or peak_memory_mib()
            seconds = time.perf_counter() - self.start
            self.steps.append(Step(seconds, slots, self.compilations, _resident_mib()))
            return slots

        def count(event: str, duration_secs: float, **_: str | int) -> None:
            self.compilations += event == COMPILATION

        jax.monitoring.register_event_duration_secs_listener(count)
        with (
            mock.patch.object(step, "pair_slots", observed),
            running("train", spec, overrides, Console(quiet=True)) as (read, run),
        ):
            train(training_run(read, run.folder), run)
        return self.steps, self.peak_mib, peak_memory_mib()


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def late_compilations(steps: list[Step]) -> list[int]:
    """The steps, counted from 0, that compiled although their number of slots had been used before."""
    seen: set[int] = set()
    late = []
    for number, (step, following) in enumerate(pairwise(steps)):
        if following.compilations > step.compilations and step.slots in seen:
            late.append(number)
        seen.add(step.slots)
    return late


def measure(folder: Path, overrides: list[str], steps: int) -> dict[str, Any]:
    """Trains for `steps` with an empty cache, results in `folder`."""
    spec = folder / "spec.yaml"
    spec.write_text(SPEC)
    os.environ["ONEFORMER_CACHE_DIR"] = str(folder / "cache")
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    keys = [*overrides, f"results_dir={folder / 'results'}", f"train.optim.max_iter={steps}"]
    with comparison.Worker(Training) as training, comparison.Others([os.getpid(), training.pid]) as others:
        seen, start_peak, peak = training("run", spec, keys)
    memory = np.array([step.memory_mib for step in seen])
    tenth = max(1, len(seen) // 10)
    return {
        "start_s": round(seen[0].seconds, 1),
        "start_peak_mib": round(start_peak),
        "peak_mib": round(peak),
        "steps": len(seen),
        "steps_per_s": round((len(seen) - 1) / (seen[-1].seconds - seen[0].seconds), 1),
        # Medians of the second and of the last tenth of the steps.
        "memory_mib": [round(float(np.median(part))) for part in (memory[tenth : 2 * tenth], memory[-tenth:])],
        "pair_slots": sorted({step.slots for step in seen}),
        "compilations": seen[-1].compilations,
        "late_compilations": late_compilations(seen),
        "others_share": round(others.share, 3),
    }


def make(data: Path, images: int, form: str) -> None:
    """Draws the pictures, and prepares them as shards, unless they exist already."""
    from oneformer_jax.data.datasets.sources import Source, open_sources
    from oneformer_jax.data.datasets.tfds_builder import prepare

    if not (data / "annotations.json").is_file():
        write_mosaics(data, images, (SIDE, SIDE), segments_of)
    if form == "shards":
        dataset = open_sources([Source(data / "annotations.json", data / "images", data / "panoptic")])
        prepare({"train": dataset}, data / "shards")


def keys_of(data: Path, form: str) -> list[str]:
    """The keys of a spec that read them."""
    if form == "shards":
        return [f"dataset.train.images=tfds://{data / 'shards'}"]
    names = {"images": "images", "panoptic": "panoptic", "annotations": "annotations.json"}
    return [f"dataset.train.{key}={data / name}" for key, name in names.items()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="where the pictures are or will be: about 1 GB")
    parser.add_argument("--form", choices=("files", "shards"), default="files")
    parser.add_argument("--images", type=int, default=IMAGES)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--workers", type=int, default=2, help="dataset.train.num_workers")
    parser.add_argument("--output", type=Path, default=command.RESULTS)
    options = parser.parse_args()
    data = (options.folder / f"mosaics-{options.images}").resolve()
    comparison.in_process(partial(make, data, options.images, options.form))  # its memory is not the training's
    keys = keys_of(data, options.form)
    workload = {
        "images": options.images,
        "segments": sum(map(segments_of, range(options.images))),
        "form": options.form,
        "workers": options.workers,
        "device": "cpu",
    }
    with tempfile.TemporaryDirectory(dir=options.folder) as results:
        found = measure(Path(results), [*keys, f"dataset.train.num_workers={options.workers}"], options.steps)
    machine = describe() | {"device": "cpu"}
    result = {"kind": "large", "workload": workload, "date": date.today().isoformat(), "machine": machine} | found
    command.write(options.output, f"large-{options.form}-{options.images}-w{options.workers}", result)
    print({name: value for name, value in result.items() if name != "machine"})


if __name__ == "__main__":
    main()
