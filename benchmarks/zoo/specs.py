"""The specs that evaluate the published checkpoints, `configs/published`, and the commands for them."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from benchmarks.zoo.table import BACKBONES, DATA, ENTRIES, Entry
from converters.published import DINAT
from oneformer_jax.app.spec.backbone_keys import SECTIONS

FOLDER = Path(__file__).resolve().parents[2] / "configs" / "published"


def spec_of(entry: Entry) -> Path:
    """Its file."""
    return FOLDER / f"{entry.stem}.yaml"


def scores_of(entry: Entry) -> Iterator[str]:
    """Those that are published, with their names."""
    for name, score in zip(("PQ", "AP", "mIoU"), entry.scores, strict=True):
        if score is not None:
            yield f"{name} {score:.1f}"


def conversion(entry: Entry) -> str:
    """The words of `convert` that fetch and convert it; a file of NGC has been fetched."""
    label_map = DATA[entry.data].files.label_map
    source = f"hf://{entry.hub}" if entry.hub else entry.address or f"{entry.version}/{entry.file}"
    words = f"{source} weights/{entry.stem} --label-map {label_map}"
    is_untold = "dilations" in entry.keys and not entry.hub and entry.file not in DINAT
    return f"{words} --backbone configs/published/{entry.stem}.yaml" if is_untold else words


def write() -> None:
    """Writes all of them, and removes what is no longer one."""
    FOLDER.mkdir(exist_ok=True)
    for path in FOLDER.glob("*.yaml"):
        path.unlink()
    for entry in ENTRIES:
        spec_of(entry).write_text(content(entry))


def content(entry: Entry) -> str:
    """The spec as YAML."""
    data, backbone = DATA[entry.data], BACKBONES[entry.backbone]
    scores = ", ".join(scores_of(entry)) or "none are published"
    section = SECTIONS[backbone.name]
    keys = entry.backbone_keys
    short, long = entry.edges
    lines = [
        f"# {backbone.title} on {data.title}. Published scores: {scores}. docs/model-zoo.md has all checkpoints.",
        f"#   python cli.py convert {conversion(entry)}",
        f"#   python cli.py evaluate --spec configs/published/{entry.stem}.yaml",
        f"# The data: {data.source}",
        "# `python -m benchmarks.zoo specs` writes this file.",
        f"results_dir: runs/published/{entry.stem}",
        "model:",
        "  backbone:",
        f"    name: {backbone.name}",
        *([f"    {section}:", *(f"      {key}: {_flow(value)}" for key, value in keys.items())] if keys else []),
        f"  sem_seg_head: {{num_classes: {data.classes}}}",
        f"  one_former: {{num_object_queries: {entry.queries}}}",
        "  test:",
        *(f"    {task}_on: true" for task in ("semantic", "instance", "panoptic")),
        *(f"    {name}: {value}" for name, value in vars(entry.thresholds).items()),
        "dataset:",
        "  val:",
        *(f"    {name}: {getattr(data.files, name)}" for name in ("images", "annotations", "panoptic")),
        "    batch_size: 1",
        *([f"  image_size: {entry.squeezed}"] if entry.squeezed else []),
        "  augmentation:",
        *(["    test_geometry: square"] if entry.squeezed else []),
        f"    test_min_size: {short}",
        f"    test_max_size: {long}",
        "evaluate:",
        f"  checkpoint: weights/{entry.stem}",
    ]
    return "\n".join([*lines, ""])


def _flow(value: Any) -> str:
    """On one line."""
    return str(yaml.safe_dump(value, default_flow_style=True, width=1000)).removesuffix("...\n").strip()
