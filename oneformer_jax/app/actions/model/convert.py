"""The convert action: weights of any known source in, a checkpoint of ours or a Hugging Face folder out."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from converters.infer_backbone import Facts
from converters.names.recognise import Kind
from converters.weights import Weights, read_weights
from converters.write_huggingface import write_huggingface
from oneformer_jax.checkpoints.store import Checkpoints
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.errors import CheckpointError
from oneformer_jax.stored import read_json
from oneformer_jax.writing import new_folder, remove_unfinished, write_json

Target = Literal["checkpoint", "huggingface"]


def convert(
    source: str,
    destination: Path,
    console: Console,
    *,
    kind: Kind | Literal["auto"],
    target: Target,
    label_map: Path | None,
    report: Path | None,
    backbone: Facts | None = None,
) -> None:
    """Writes `destination`, a folder that must not exist yet or be empty, and prints what became of every name.
    `backbone`: what weights do not hold of theirs.

    Raises OneFormerError: the source cannot be read or does not fit, the label map or the source's own classes are of
    another number, the destination is taken, the target cannot hold the configuration.
    """
    remove_unfinished(destination)
    if destination.exists() and (not destination.is_dir() or any(destination.iterdir())):
        raise CheckpointError("exists already", where=str(destination), hint="give a folder that is empty or new")
    weights = read_weights(source, kind, backbone=backbone)
    if weights.report is not None:
        console.print("\n".join(weights.report.lines()))
        if report is not None:
            write_json(report, weights.report.to_json())
    description = weights.described(_categories(weights, label_map, console))
    if "predictor" in weights.params:
        console.print(f"thresholds: {description.thresholds}")
    if target == "huggingface":
        adapted = write_huggingface(
            destination,
            weights.params,
            weights.config,
            categories=description.categories,
            pixel_mean=description.pixel_mean,
            pixel_std=description.pixel_std,
        )
        for line in adapted:
            console.print(line)
        console.print("the format has no place for thresholds: whoever reads it back has to state them again")
    else:
        with new_folder(destination) as fresh:
            store = Checkpoints(fresh, keep=0, monitor="mIoU")
            store.save(weights.params, None, description)
            store.close()
    console.print(f"{target}: {destination}")


def _categories(weights: Weights, label_map: Path | None, console: Console) -> Categories:
    """Those of the label map (or of an annotation file's `categories`); else the source's, its names or numbers."""
    if label_map is not None:
        content = read_json(label_map)
        entries = content.get("categories") if isinstance(content, dict) else content
        return weights.fitting(Categories.from_json(entries, where=str(label_map)), str(label_map))
    if weights.description is not None:
        return weights.description.categories
    told = weights.categories
    if told is None and "predictor" in weights.params:
        console.print(
            "warning: which classes are things is not known: give --label-map for instance and panoptic results",
            style="yellow",
        )
    return told or weights.classes
