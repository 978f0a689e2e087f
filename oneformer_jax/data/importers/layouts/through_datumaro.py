"""Layouts that datumaro reads, by its names for them: `--format datumaro:NAME` (the extra `formats`).

Polygons and masks become objects, those of one group and label one object; boxes and the like are left out.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import image_size
from oneformer_jax.data.importers.pairs import SPLITS
from oneformer_jax.data.importers.reader import Format, Item, Options, Progress, Reader, Shape, Shapes
from oneformer_jax.data.importers.run_lengths import run_lengths_of, united
from oneformer_jax.errors import DataError, needs

PREFIX = "datumaro:"


@dataclass
class ThroughDatumaro(Reader):
    """See `Reader`. `found`: what datumaro has read of each picture."""

    format: str
    items: Sequence[Item]
    categories: Categories
    found: Mapping[Path, Any]
    guesses: list[str]
    left_out: list[DataError]
    regions: bool = False
    has_objects: bool = True

    def read(self, item: Item) -> Shapes:
        size, groups = image_size(item.image), defaultdict[tuple[int, Any], list[Any]](list)
        crowds, others = set[tuple[int, Any]](), Counter[str]()
        for number, annotation in enumerate(self.found[item.image].annotations):
            kind, label = annotation.type.name, getattr(annotation, "label", None)
            if kind not in ("polygon", "mask") or label is None or not 0 <= label < len(self.categories):
                others[kind] += 1
                continue
            key = (label, annotation.group or ("alone", number))
            polygon = kind == "polygon" and [[float(value) for value in annotation.points]]
            groups[key].append(polygon or run_lengths_of(np.ascontiguousarray(annotation.image, dtype=bool)))
            if annotation.attributes.get("is_crowd"):
                crowds.add(key)
        masks = {annotation.group for annotation in self.found[item.image].annotations if annotation.group}
        for annotation in self.found[item.image].annotations:  # the box of an object that has a mask
            if annotation.type.name == "bbox" and annotation.group in masks and others["bbox"]:
                others["bbox"] -= 1
        shapes = tuple(Shape(key[0], key in crowds, united(parts, size)) for key, parts in groups.items())
        notes = [
            DataError(f"{n} of kind {kind} have no mask", where=str(item.image)) for kind, n in others.items() if n
        ]
        return Shapes(size, shapes, tuple(notes))


def datumaro_format(name: str) -> Format:
    """The format of a name with the prefix `datumaro:`."""
    kind = name.removeprefix(PREFIX)
    return Format(name, f"{kind}, read by datumaro", lambda source: "", partial(open_with_datumaro, kind))


def open_with_datumaro(kind: str, source: Path, options: Options, progress: Progress) -> ThroughDatumaro:
    """Raises OneFormerError where datumaro is not installed, DataError: it knows no such format or cannot read it."""
    with needs("formats", where="--format"):
        from datumaro.components.annotation import AnnotationType
        from datumaro.components.dataset import Dataset
        from datumaro.components.environment import DEFAULT_ENVIRONMENT
    known = sorted({*DEFAULT_ENVIRONMENT.importers, *DEFAULT_ENVIRONMENT.extractors})
    if kind not in known:
        raise DataError(
            f"datumaro knows no format {kind!r}", where="--format", hint=f"choose one of {', '.join(known)}"
        )
    items, left_out, found = list[Item](), list[DataError](), dict[Path, Any]()
    try:
        dataset = Dataset.import_from(str(source), kind)
        labels = dataset.categories().get(AnnotationType.label)
        names = [label.name for label in labels.items] if labels is not None else []
        for entry in dataset:
            path = getattr(entry.media, "path", None)
            if not path or not Path(path).is_file():
                left_out.append(DataError(f"there is no file of the picture {entry.id!r}", where=str(source)))
                continue
            found[Path(path)] = entry
            items.append(Item(str(entry.id), Path(path), (), SPLITS.get(str(entry.subset).casefold(), "")))
            progress(len(items))
    except Exception as error:  # of whatever class the reader of that format raises
        raise DataError(f"datumaro cannot read it as {kind}: {error}", where=str(source)) from error
    if not items or not names:
        raise DataError(f"datumaro finds no {'pictures' if names else 'labels'} there", where=str(source))
    entries = [{"id": number, "name": name, "isthing": 1} for number, name in enumerate(names, start=1)]
    return ThroughDatumaro(f"{PREFIX}{kind}", items, Categories.from_json(entries), found, [], left_out)
