"""Post-processing of one image beside the same rules written down in PyTorch: `python -m benchmarks.postprocess`.

    --masks regions    predictions like those of a trained model: 40 queries share the image, the others find nothing
    --masks noise      the worst case: every mask is random at every place, so nothing can be left out

From logits at stride 4 to a map of classes, the ids of segments, or binary masks with scores, at the size of the image.
PyTorch's side keeps all queries at full size, as the original does. It ends with dense masks; this project's ends with
run lengths, which a score or a file needs. Each side runs in a process of its own with all cores; they are measured
alternately.
"""

import argparse
import dataclasses
import os
from dataclasses import dataclass
from datetime import date
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from benchmarks import command, comparison
from benchmarks.machine import cores, describe, peak_memory_mib

TASKS = ("semantic", "panoptic", "instance")
CLASSES, THINGS, QUERIES, MATTER = 133, 80, 150, 40
CONFIDENCE = 10.0  # class logits of what a query has found, or of no object; the others are normally distributed
THRESHOLD, OVERLAP, TOP = 0.4, 0.5, 100


@dataclass(frozen=True)
class PostprocessWorkload:
    """Predictions of `QUERIES` queries for a square image, of which `MATTER` have found something."""

    size: int
    masks: str = "regions"
    device: str = "cpu"

    kind = "postprocess"

    @property
    def name(self) -> str:
        """Of the result's file."""
        return f"postprocess-{self.masks}-{self.size}-cpu"

    @cached_property
    def class_logits(self) -> np.ndarray:
        """float32 (Q, K + 1), no object last."""
        rng = np.random.default_rng(0)
        logits = rng.normal(size=(QUERIES, CLASSES + 1)).astype(np.float32)
        logits[np.arange(MATTER), rng.integers(0, CLASSES, MATTER)] += CONFIDENCE
        logits[MATTER:, -1] += CONFIDENCE
        return logits

    @cached_property
    def mask_logits(self) -> np.ndarray:
        """float32 (Q, H/4, W/4)."""
        rng = np.random.default_rng(1)
        side = self.size // 4
        if self.masks == "noise":
            return rng.normal(scale=5, size=(QUERIES, side, side)).astype(np.float32)

        def smooth(count: int, cells: int) -> np.ndarray:
            fields = rng.normal(size=(count, cells, cells)).astype(np.float32)
            return np.stack([cv2.resize(field, (side, side), interpolation=cv2.INTER_CUBIC) for field in fields])

        fields = smooth(MATTER, 8)
        second, first = np.partition(fields, -2, axis=0)[-2:]
        margin = fields - np.where(fields == first, second, first)  # above 0 in the region of the query
        found = np.clip(40 * margin, -25, 15) + smooth(MATTER, side // 4) / 2
        repeated = 0.7 * found[rng.integers(0, MATTER, QUERIES - MATTER)] + smooth(QUERIES - MATTER, side // 8)
        return np.concatenate([found, repeated])


class Side:
    """What both sides share."""

    def run(self, task: str) -> None:
        """One task, as it is timed."""
        self.result(task)

    def result(self, task: str) -> Any:
        raise NotImplementedError

    def memory(self) -> float:
        """The most memory that the process has held, in MiB."""
        return peak_memory_mib()


class ThisProject(Side):
    """NumPy."""

    def __init__(self, workload: PostprocessWorkload) -> None:
        from oneformer_jax.data.geometry import Geometry
        from oneformer_jax.postprocess.results import Thresholds

        size = (workload.size, workload.size)
        self._of_image = workload.class_logits, workload.mask_logits, Geometry(size, size, size)
        self._rules = np.arange(CLASSES) < THINGS, Thresholds(THRESHOLD, OVERLAP, TOP)

    def result(self, task: str) -> Any:
        from oneformer_jax.postprocess import results

        if task == "semantic":
            return results.semantic_map(*self._of_image)
        rule = results.panoptic_segmentation if task == "panoptic" else results.instance_segmentation
        return rule(*self._of_image, *self._rules)

    def shown(self, task: str) -> np.ndarray:
        """Integers of every pixel, to compare: classes, ids, or how many instances lie there."""
        from pycocotools import mask as coco_mask

        result = self.result(task)
        if task == "semantic":
            return result.astype(np.int64)
        if task == "panoptic":
            return result.ids.astype(np.int64)
        return sum(coco_mask.decode(instance.mask).astype(np.int64) for instance in result)


class FullSize(Side):
    """PyTorch, all queries at full size."""

    def __init__(self, workload: PostprocessWorkload) -> None:
        import torch

        torch.set_num_threads(cores())
        self._size = (workload.size, workload.size)
        self._class_logits = torch.from_numpy(workload.class_logits)
        self._mask_logits = torch.from_numpy(workload.mask_logits)

    def result(self, task: str) -> Any:
        import torch

        with torch.inference_mode():
            return getattr(self, f"_{task}")(self._class_logits.softmax(-1))

    def shown(self, task: str) -> np.ndarray:
        """As of the other side."""
        result = self.result(task)
        return (result[0].sum(0) if task == "instance" else result).numpy().astype(np.int64)

    def _resized(self, mask_logits: Any) -> Any:
        """To the network's input, without its padding, and to the image."""
        import torch.nn.functional as F

        height, width = self._size
        for size in (self._size, self._size):
            resized = F.interpolate(mask_logits[None], size=size, mode="bilinear", align_corners=False)[0]
            mask_logits = resized[:, :height, :width]
        return mask_logits

    def _semantic(self, probabilities: Any) -> Any:
        import torch

        masks = self._resized(self._mask_logits).sigmoid()
        return torch.einsum("qk,qhw->khw", probabilities[:, :-1], masks).argmax(0)

    def _panoptic(self, probabilities: Any) -> Any:
        import torch

        scores, labels = probabilities.max(-1)
        keep = (labels != CLASSES) & (scores > THRESHOLD)
        masks = self._resized(self._mask_logits[keep]).sigmoid()
        winner = (scores[keep, None, None] * masks).argmax(0)
        ids = torch.zeros(self._size, dtype=torch.int32)
        number, stuff = 0, dict[int, int]()
        for query, label in enumerate(labels[keep].tolist()):
            won, own = winner == query, masks[query] >= 0.5
            visible = won & own
            if not visible.any() or won.sum() / own.sum() < OVERLAP:
                continue
            if label in stuff:
                ids[visible] = stuff[label]
                continue
            number += 1
            ids[visible] = number
            if label >= THINGS:
                stuff[label] = number
        return ids

    def _instance(self, probabilities: Any) -> Any:
        scores, index = probabilities[:, :-1].flatten().topk(TOP)
        queries, labels = index // CLASSES, index % CLASSES
        things = labels < THINGS
        scores, queries, labels = scores[things], queries[things], labels[things]
        logits = self._resized(self._mask_logits[queries])
        inside = logits > 0
        quality = (logits.sigmoid() * inside).sum((1, 2)) / (inside.sum((1, 2)) + 1e-6)
        return inside, scores * quality, labels


def compare(workload: PostprocessWorkload, rounds: int) -> dict[str, Any]:
    """Milliseconds of each task and measurement, and at how many pixels the two sides differ."""
    starts: dict[str, comparison.Side] = {
        "this_project": partial(ThisProject, workload),
        "reference": partial(FullSize, workload),
    }
    found: dict[str, Any] = {task: {name: {"times_ms": []} for name in starts} for task in TASKS}
    with comparison.Worker(starts["this_project"]) as project, comparison.Worker(starts["reference"]) as reference:
        workers = {"this_project": project, "reference": reference}
        for task in TASKS:
            different = project("shown", task) != reference("shown", task)
            found[task]["different_pixels"] = int(np.count_nonzero(different))
        with comparison.Others([os.getpid(), project.pid, reference.pid]) as others:
            for task in TASKS:
                for name, times in comparison.round_times(workers, rounds, task).items():
                    found[task][name]["times_ms"] = times
        memory = {name: {"peak_mib": round(worker("memory"))} for name, worker in workers.items()}
    return {"tasks": found, **memory, "others_share": round(others.share, 3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--masks", choices=("regions", "noise"), default="regions")
    parser.add_argument("--size", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--output", type=Path, default=command.RESULTS)
    options = parser.parse_args()
    workload = PostprocessWorkload(options.size, options.masks)
    described = {"kind": workload.kind, "workload": dataclasses.asdict(workload), "date": date.today().isoformat()}
    machine = {"machine": describe() | {"device": "cpu"}}
    result = described | machine | compare(workload, options.rounds)
    for task, sides in result["tasks"].items():
        project, reference = (np.median(sides[side]["times_ms"]) for side in ("this_project", "reference"))
        print(f"{task}: {project:.0f} ms, PyTorch {reference:.0f} ms, {sides['different_pixels']} pixels differ")
    print(command.write(options.output, workload.name, result))


if __name__ == "__main__":
    main()
