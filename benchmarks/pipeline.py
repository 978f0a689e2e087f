"""Training samples a second on one core (decode, augment, targets), beside the usual way with dense masks:

    python -m benchmarks.pipeline                       # pictures drawn for it, 640x480, about 11 segments each
    python -m benchmarks.pipeline --recipe plain        # without rotation, blur and erasing, on both sides
    python -m benchmarks.pipeline --data FOLDER         # images/, panoptic/ and annotations.json of COCO panoptic

Both sides draw from the same distributions and make one sample at a time in one thread of a process of their own.
"""

import argparse
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import command, comparison
from benchmarks.dense_pipeline import DensePipeline, Recipe
from benchmarks.machine import describe, peak_memory_mib
from benchmarks.mosaics import write_mosaics

RECIPES = {"tao": Recipe(rotation=0.5, blur=0.4, erasing=0.25), "plain": Recipe()}
PICTURES, SIZE = 100, (480, 640)
QUERIES, CONTEXT = 150, 16


@dataclass(frozen=True)
class PipelineWorkload:
    """Crops of `crop` x `crop` pixels from `data`, "drawn" or the name of a folder."""

    data: str
    recipe: str
    crop: int = 1024
    device: str = "cpu"

    kind = "pipeline"

    @property
    def name(self) -> str:
        """Of the result's file."""
        return f"pipeline-{self.data}-{self.recipe}-{self.crop}-cpu"


class Maker:
    """One side: makes samples one after the other."""

    def __init__(self, make: Any, images: int) -> None:
        cv2.setNumThreads(1)
        self.make, self.images = make, images

    def run(self, start: int, count: int) -> None:
        """Samples `start` to `start + count`, going through all images before any is repeated."""
        for sample in range(start, start + count):
            self.make(sample, sample % self.images)

    def memory(self) -> float:
        """The most memory that the process has held, in MiB."""
        return peak_memory_mib()


def this_project(folder: Path, crop: int, recipe: Recipe) -> Maker:
    """This project's sample maker."""
    from oneformer_jax.data.augmentation import AugmentationSettings
    from oneformer_jax.data.datasets.sources import Source, open_sources
    from oneformer_jax.data.pipeline import PipelineSettings, SampleMaker

    dataset = open_sources([Source(folder / "annotations.json", folder / "images", folder / "panoptic")])
    augmentation = AugmentationSettings(
        crop=(crop, crop), rotation_prob=recipe.rotation, blur_prob=recipe.blur, erasing_prob=recipe.erasing
    )
    settings = PipelineSettings(
        batch_size=1,
        num_queries=QUERIES,
        n_ctx=CONTEXT,
        task_prob={"semantic": 1.0, "instance": 1.0, "panoptic": 1.0},
        augmentation=augmentation,
    )
    return Maker(SampleMaker(dataset, settings.fitted(dataset)), len(dataset))


def dense_masks(folder: Path, crop: int, recipe: Recipe) -> Maker:
    """The usual approach."""
    pipeline = DensePipeline(folder, crop, recipe)
    return Maker(pipeline, len(pipeline.annotations))


def compare(folder: Path, workload: PipelineWorkload, *, rounds: int, samples: int) -> dict[str, Any]:
    """Milliseconds per sample of each measurement. The side that begins a round alternates."""
    recipe = RECIPES[workload.recipe]
    sides = {
        "this_project": partial(this_project, folder, workload.crop, recipe),
        "reference": partial(dense_masks, folder, workload.crop, recipe),
    }
    times: dict[str, list[float]] = {name: [] for name in sides}
    with comparison.Worker(sides["this_project"]) as project, comparison.Worker(sides["reference"]) as reference:
        workers = [("this_project", project), ("reference", reference)]
        for _, worker in workers:
            worker("run", 0, 4)
        with comparison.Others([os.getpid(), project.pid, reference.pid]) as others:
            for round_ in range(rounds):
                for name, worker in workers if round_ % 2 == 0 else reversed(workers):
                    time.sleep(comparison.PAUSE)
                    seconds, _ = worker.timed("run", round_ * samples, samples)
                    times[name].append(round(1000 * seconds / samples, 2))
        memory = {name: round(worker("memory")) for name, worker in workers}
    return {
        "kind": workload.kind,
        "workload": asdict(workload),
        "date": date.today().isoformat(),
        "machine": describe() | {"device": "cpu"},
        **{name: {"times_ms": times[name], "peak_mib": memory[name]} for name in sides},
        "samples": rounds * samples,
        "others_share": round(others.share, 3),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="a folder of COCO panoptic data; else pictures are drawn")
    parser.add_argument("--recipe", choices=RECIPES, default="tao")
    parser.add_argument("--crop", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--samples", type=int, default=50, help="of each measurement")
    parser.add_argument("--output", type=Path, default=command.RESULTS)
    options = parser.parse_args()
    workload = PipelineWorkload(options.data.name if options.data else "drawn", options.recipe, options.crop)
    with tempfile.TemporaryDirectory() as drawn:
        folder = options.data or Path(drawn)
        if options.data is None:
            write_mosaics(folder, PICTURES, SIZE, lambda i: 3 + i % 17)
        result = compare(folder, workload, rounds=options.rounds, samples=options.samples)
    rates = [1000 / np.median(result[side]["times_ms"]) for side in ("this_project", "reference")]
    command.write(options.output, workload.name, result)
    print(f"{workload.name}: {rates[0]:.1f} images/s, dense masks {rates[1]:.1f}, ratio {rates[0] / rates[1]:.2f}")


if __name__ == "__main__":
    main()
