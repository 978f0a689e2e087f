"""The layouts of labels that are read, and which of them a source has."""

from pathlib import Path

from oneformer_jax.data.importers.layouts import (
    ade20k,
    cityscapes,
    coco,
    labelme,
    mask_files,
    object_masks,
    semantic_masks,
    vistas,
    yolo,
)
from oneformer_jax.data.importers.layouts.through_datumaro import PREFIX, datumaro_format
from oneformer_jax.data.importers.reader import Format
from oneformer_jax.errors import DataError

FORMATS: tuple[Format, ...] = (
    cityscapes.FORMAT,
    vistas.FORMAT,
    ade20k.CHALLENGE,
    ade20k.FULL,
    yolo.FORMAT,
    coco.FORMAT,
    labelme.FORMAT,
    object_masks.FORMAT,
    mask_files.FORMAT,
    semantic_masks.FORMAT,
)
"""The first that a source seems to have is taken: those that ask most of a source come first."""


def named(name: str) -> Format:
    """Raises DataError for a name that no format has."""
    if name.startswith(PREFIX):
        return datumaro_format(name)
    found = next((format for format in FORMATS if format.name == name), None)
    if found is None:
        raise DataError(f"there is no format {name!r}", where="--format", hint=f"choose one of{_choices()}")
    return found


def recognised(source: Path) -> tuple[Format, str]:
    """The format that a source has, and why it seems so. Raises DataError where it has none."""
    for format in FORMATS:
        if why := format.find(source):
            return format, why
    hint = f"name what it is with --format, one of{_choices()}"
    raise DataError("this is no layout of labels that is known", where=str(source), hint=hint)


def _choices() -> str:
    return "".join(f"\n     {format.name}: {format.title}" for format in FORMATS)
