"""What every data set offers, whatever format its files have: records, categories, pixels and segments.

What is wrong with a data set is collected, and reported together in one error (`Problems`).
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int16, UInt8

from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.datasets.images import ImageFile, read_image
from oneformer_jax.errors import DataError

SHOWN, OF_A_KIND = 20, 3  # kinds of problems in one message, and problems of each
MAX_SEGMENTS = 2**15 - 1  # of an image: planes number them in 16 bits with a sign
VOID = -1  # a pixel of no segment; negative, so that it can never be the index or id of one


class Segment(NamedTuple):
    """One segment of an image: its id in the annotations, its class index, and whether it marks a crowd."""

    id: int
    category: int
    iscrowd: bool


@dataclass(frozen=True, slots=True)
class Record:
    """One annotated image; sizes in pixels, of the upright image. Where masks overlap, the segment listed first is in
    front."""

    image_id: int | str
    image_path: Path
    height: int
    width: int
    segments: tuple[Segment, ...]

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that belongs to this image alone: the image first; none where files hold many images."""
        return (self.image_path,)

    @property
    def panoptic_files(self) -> tuple[Path, ...]:
        """Those of `files` that are panoptic PNGs."""
        return self.files[1:]


class EncodedRecord(NamedTuple):
    """An image as files hold it, and its segments: a panoptic PNG or, where that is empty, a mask a segment in COCO's
    compressed run lengths."""

    image: bytes
    panoptic: bytes
    masks: tuple[bytes, ...]


@runtime_checkable
class Dataset(Protocol):
    """The annotated images of one split, from one or several annotation files.

    Everything that can be known from the annotations and the folder listings is checked when a data set is opened;
    pixels are checked when they are read.
    """

    records: Sequence[Record]
    categories: Categories
    where: str  # the annotation files, for messages
    parts: Mapping[str, range]  # the records of each annotation file by its name in the metrics
    notes: tuple[DataError, ...] = ()  # what was read otherwise than files have it, or left out
    shared_files: tuple[Path, ...] = ()  # files that hold many records
    warnings: tuple[str, ...] = ()  # what does not keep it from being used

    @property
    def planes(self) -> int:
        """How many maps hold the segments of any record, crowds not counted: 1 unless masks overlap."""

    def read_segments(self, i: int) -> Int16[np.ndarray, "r h w"]:
        """Where the segments of record `i` lie: positions in `records[i].segments`, `VOID` elsewhere.

        A segment lies in one plane, whole. There is at least one plane, and more only where masks overlap; planes
        from `planes` on hold crowds only. Raises DataError: unreadable, or it contradicts the record.
        """

    def read_image(self, i: int) -> UInt8[np.ndarray, "h w 3"]:
        """Upright RGB pixels of record `i`. Raises DataError: unreadable, or another size than the annotations say."""
        record = self.records[i]
        image = read_image(record.image_path)
        check_size(image.shape[:2], record, record.image_path)
        return image

    def read(self, i: int) -> tuple[UInt8[np.ndarray, "h w 3"], Int16[np.ndarray, "r h w"]]:
        """Pixels and segments of record `i` at once. Raises DataError."""
        return self.read_image(i), self.read_segments(i)

    def encoded(self, i: int) -> EncodedRecord:
        """Record `i` as the files hold it, unread. Raises OSError, DataError."""

    def __len__(self) -> int:
        return len(self.records)

    def check_num_classes(self, num_classes: int) -> None:
        """Raises DataError unless `num_classes` covers every category (the model adds no-object itself)."""
        if num_classes < len(self.categories):
            raise DataError(
                f"num_classes is {num_classes}, but there are {len(self.categories)} categories",
                where=self.where,
                hint=f"set model.sem_seg_head.num_classes: {len(self.categories)}",
            )


@contextmanager
def naming(record: Record) -> Iterator[None]:
    """A DataError about the record's files names its image, too."""
    try:
        yield
    except DataError as error:
        place = ": ".join(filter(None, [error.where, f"image {record.image_id}"]))
        raise DataError(error.what, where=place, hint=error.hint) from error


def check_size(size: tuple[int, ...], record: Record, file: ImageFile) -> None:
    """Raises DataError unless the pixels of `file` have the size of the record."""
    if size != (record.height, record.width):
        raise DataError(
            f"the size is {size[0]}x{size[1]} (height x width), the annotations say {record.height}x{record.width}",
            where=str(file),
            hint="images are rotated upright by their EXIF orientation, panoptic PNGs are not",
        )


def check_segments(count: int, where: str) -> None:
    """Raises DataError: more segments in one image than planes can number."""
    if count > MAX_SEGMENTS:
        raise DataError(
            f"{count} segments in one image, at most {MAX_SEGMENTS} can be told apart",
            where=where,
            hint="cut the image into tiles, or unite segments of stuff",
        )


def front(planes: Int16[np.ndarray, "r h w"]) -> Int16[np.ndarray, "h w"]:
    """One segment for every pixel: the one in front where several lie (see `Record`), `VOID` where none does."""
    if len(planes) == 1:
        return planes[0]
    # Without a sign, VOID is the largest number.
    return planes.view(np.uint16).min(axis=0).view(np.int16)


class Problems:
    """What is wrong, in the order found.

    problems = Problems()
    for entry in entries:
        with problems.collected():
            ...  # may raise DataError
    problems.raise_all()

    With a list `left_out`, that gets them and nothing is raised.
    """

    def __init__(self, errors: Iterable[DataError] = (), *, left_out: list[DataError] | None = None) -> None:
        self.errors, self._left_out = list(errors), left_out

    @contextmanager
    def collected(self) -> Iterator[None]:
        """A DataError inside the block ends the block, not the caller. Problems raised together stay apart."""
        try:
            yield
        except ManyProblems as error:
            self.errors += error.errors
        except DataError as error:
            self.errors.append(error)

    def raise_all(self) -> None:
        """Raises the one error, or `ManyProblems`; returns when there is none. What was found twice, as in a file that
        is used twice, is one."""
        if self._left_out is not None:
            self._left_out += self.errors
            self.errors = []
        self.errors = list({str(error): error for error in self.errors}.values())
        if len(self.errors) == 1:
            raise self.errors[0]
        if self.errors:
            raise ManyProblems(self.errors)


class ManyProblems(DataError):
    """Several errors as one message, see `listing`."""

    def __init__(self, errors: list[DataError]) -> None:
        self.errors = errors
        super().__init__(listing(f"{len(errors)} problems", errors))


def listing(title: str, errors: Sequence[DataError]) -> str:
    """`title`, then the kinds of errors, at most `SHOWN`: the first `OF_A_KIND` with their places, how many more, and
    what to do. Of one kind are those whose messages differ in numbers, names and paths alone."""
    kinds: dict[str, list[DataError]] = {}
    for error in errors:
        kinds.setdefault(_without_particulars(error.what), []).append(error)
    lines, hints = [title], set[str]()
    for found in list(kinds.values())[:SHOWN]:
        lines += [f"{error.where}: {error.what}" if error.where else error.what for error in found[:OF_A_KIND]]
        if (more := len(found) - OF_A_KIND) > 0:
            lines.append(f"and {more} more like these")
        if found[0].hint and found[0].hint not in hints:
            hints.add(found[0].hint)
            lines.append(f"-> {found[0].hint}")
    if (more := len(kinds) - SHOWN) > 0:
        lines.append(f"and {more} more kinds of problems")
    return "\n  ".join(lines)


def _without_particulars(what: str) -> str:
    words = re.sub(r"'[^']*'", "*", what).split()
    return " ".join("*" if re.search(r"[\d./\\]", word) else word for word in words)
