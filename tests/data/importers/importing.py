"""All pictures of a source written as one split, by the parts that the command is made of."""

from dataclasses import dataclass
from pathlib import Path

from oneformer_jax.data.importers.formats import named, recognised
from oneformer_jax.data.importers.reader import Options, Reader
from oneformer_jax.data.importers.written import Counts, write_split


@dataclass
class Result:
    """What was read and written."""

    format: str
    reader: Reader
    counts: Counts


def imported(
    source: Path, folder: Path, options: Options | None = None, *, format: str = "", copy: bool = False
) -> Result:
    """Without a format it is recognised."""
    chosen = named(format) if format else recognised(source)[0]
    reader = opened(source, options, format=chosen.name)
    counts = write_split(folder, reader, list(reader.items), copy=copy)
    return Result(chosen.name, reader, counts)


def opened(source: Path, options: Options | None = None, *, format: str = "") -> Reader:
    """What reads a source."""
    chosen = named(format) if format else recognised(source)[0]
    return chosen.open(source, options or Options(), lambda done: None)
