"""Pictures and masks of a source, paired by their names or by lists.

A file is a mask where a folder above it, or the end of its name, says so; what is left of the path, without the words
that say what a file is and in which split, is what a picture and its mask share.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePath

from oneformer_jax.data.datasets.images import SUFFIXES, pictures_below
from oneformer_jax.data.importers.reader import Item, Options
from oneformer_jax.errors import DataError

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_PICTURE_FOLDER = re.compile(
    r"images?|imgs?|jpegimages|photos|pictures|pics|rgb|inputs?|leftimg8bit|img_dir|image_\d", re.IGNORECASE
)
_MASKS = (
    *("annotations?", "annot", "anns?", "ann_dir", "labels?", "masks?", "ground_?truth", "gt", "targets", "segmaps"),
    *("segmentationclass(?:raw|png)?", "segmentations?", "seg", "semantics?"),
)
_MASK_FOLDER = re.compile(rf"(?P<rest>.*?)[ _-]?(?:{'|'.join(_MASKS)})")
_OBJECT_FOLDER = re.compile(r"(?:segmentation)?objects?(?:png)?|instances?(?:[ _-]?(?:masks?|ids?|labels?))?|inst")
_OBJECT_FILE = re.compile(r"(?P<rest>.+?)[ ._-](?:instances?|instanceids|objects?|inst)", re.IGNORECASE)
_MASK_FILE = re.compile(r"(?P<rest>.+?)[ ._-](?:(?i:masks?|labels?|seg|segmentation|gt|annotation|lbl)|L)")
_PICTURE_FILE = re.compile(r"(?P<rest>.+?)[ ._-](?:image|img|photo|rgb|sat)", re.IGNORECASE)
_LOSSY = frozenset({".jpg", ".jpeg", ".webp"})
_LISTS = ("", "ImageSets/Segmentation", "ImageSets", "splits", "lists")


@dataclass(frozen=True)
class SourceFile:
    """A picture or a mask: `key` is what both share."""

    path: Path
    key: str
    split: str
    mask: str  # the folder or ending that says that it is a mask, "" for pictures
    of_objects: bool = False  # whether the mask numbers objects, not classes


@dataclass
class Pairs:
    """Pictures with their masks, sorted by name, and what has no partner."""

    items: list[Item] = field(default_factory=list)
    left_out: list[DataError] = field(default_factory=list)


def split_of(folders: Iterable[str]) -> str:
    """The split that one of these folders names, "" where none does."""
    return next((SPLITS[word] for folder in folders if (word := folder.casefold()) in SPLITS), "")


def without_splits(path: PurePath) -> str:
    """A path without the folders that name a split."""
    return "/".join([*(folder for folder in path.parts[:-1] if folder.casefold() not in SPLITS), path.name])


def described(folder: Path, path: PurePath, options: Options) -> SourceFile:
    """What the name of a file says about it."""
    parts, split, mask, is_picture = list[str](), "", "", bool(options.images)
    told = {"images": PurePath(options.images).parts, "labels": PurePath(options.labels).parts}
    inner = path.parent.parts
    for role, place in told.items():
        if place and inner[: len(place)] == place:
            inner, mask = inner[len(place) :], options.labels if role == "labels" else ""
    of_objects = False
    for part in inner:
        word = part.casefold()
        if word in SPLITS:
            split = SPLITS[word]
        elif not options.labels and _OBJECT_FOLDER.fullmatch(word):
            mask, of_objects = part, True
        elif not options.labels and not mask and (found := _MASK_FOLDER.fullmatch(word)):
            mask, rest = part, found["rest"]
            split = SPLITS.get(rest, split)
            parts += [part[: len(rest)]] if rest and rest not in SPLITS else []
        elif not options.images and _PICTURE_FOLDER.fullmatch(word):
            is_picture = True
        else:
            parts.append(part)
    stem = path.stem
    if (mask or not is_picture) and (found := _OBJECT_FILE.fullmatch(stem)):
        mask, stem, of_objects = mask or stem[len(found["rest"]) :], found["rest"], True
    elif (mask or not is_picture) and (found := _MASK_FILE.fullmatch(stem)):
        mask, stem = mask or stem[len(found["rest"]) :], found["rest"]
    elif not mask and (found := _PICTURE_FILE.fullmatch(stem)):
        stem = found["rest"]
    key = unicodedata.normalize("NFC", "/".join([*parts, stem]))
    return SourceFile(folder / path, key, split, mask, of_objects)


def files_of(folder: Path, options: Options) -> list[SourceFile]:
    """All pictures and masks of a source. Where nothing is called a mask, of two files of one name, a.jpg and a.png,
    the one without loss is the mask."""
    files = [described(folder, path, options) for path in pictures_below(folder)]
    if any(file.mask for file in files):
        return files
    lossy = {file.key for file in files if file.path.suffix.lower() in _LOSSY}
    return [
        replace(file, mask=file.path.suffix) if file.key in lossy and file.path.suffix.lower() == ".png" else file
        for file in files
    ]


def pairs_of(folder: Path, options: Options) -> Pairs:
    """All pictures of a source that have a mask. Raises DataError: lists of it that name what is not there."""
    if listed := list(_listed_pairs(folder)):
        return Pairs(listed)
    files = files_of(folder, options)
    masks = defaultdict[str, list[SourceFile]](list)
    pictures = defaultdict[str, list[SourceFile]](list)
    for file in files:
        if not file.of_objects:
            (masks if file.mask else pictures)[file.key].append(file)
    paired = Pairs()
    splits = _listed_splits(folder)
    for key in sorted(pictures):
        for split, found in _by_split(pictures[key]).items():
            fitting = [mask for mask in masks.get(key, ()) if mask.split == split or not (mask.split and split)]
            listed_split = splits.get(key) or splits.get(key.rpartition("/")[2])
            _pair(key, listed_split or split, found, fitting, paired)
    for key in sorted(masks.keys() - pictures.keys()):
        paired.left_out += [DataError("the mask has no picture of its name", where=str(it.path)) for it in masks[key]]
    return paired


def _pair(key: str, split: str, pictures: list[SourceFile], masks: list[SourceFile], paired: Pairs) -> None:
    if len(pictures) > 1:
        names = ", ".join(str(picture.path) for picture in pictures)
        hint = "rename or remove one: the mask may belong to either"
        paired.left_out.append(
            DataError("several pictures have the same name but for the suffix", where=names, hint=hint)
        )
    elif not masks:
        paired.left_out.append(DataError("the picture has no mask of its name", where=str(pictures[0].path)))
    elif len(masks) > 1:
        names = ", ".join(str(mask.path) for mask in masks)
        hint = "name the folder of masks that counts: --labels FOLDER, below SOURCE"
        paired.left_out.append(DataError("several masks belong to one picture", where=names, hint=hint))
    else:
        paired.items.append(Item(key, pictures[0].path, (masks[0].path,), split))


def _by_split(files: Iterable[SourceFile]) -> dict[str, list[SourceFile]]:
    found = defaultdict[str, list[SourceFile]](list)
    for file in files:
        found[file.split].append(file)
    return found


def _lists(folder: Path) -> Iterator[tuple[str, Path, list[list[str]]]]:
    """Lists of a source by their split, each line as words."""
    for place in _LISTS:
        for name, split in SPLITS.items():
            path = folder / place / f"{name}.txt"
            if path.is_file():
                lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
                yield split, path, [line.split() for line in lines if line.strip()]


def _listed_pairs(folder: Path) -> Iterator[Item]:
    """Pictures and masks of lists that name both in each line."""
    for split, path, lines in _lists(folder):
        if not all(len(words) == 2 for words in lines):
            continue
        for number, words in enumerate(lines, start=1):
            found = [_below(folder, word) for word in words]
            for word, file in zip(words, found, strict=True):
                if file is None:
                    raise DataError(f"line {number} names {word}, which is not there", where=str(path))
            picture, mask = (file for file in found if file is not None)
            inner = picture.relative_to(folder).with_suffix("").as_posix()
            yield Item(unicodedata.normalize("NFC", inner), picture, (mask,), split)


def _below(folder: Path, name: str) -> Path | None:
    """The file of a name, which may begin with the folders of another machine."""
    parts = PurePath(name.lstrip("/")).parts
    tried = (folder.joinpath(*parts[start:]) for start in range(len(parts)))
    return next((path for path in tried if path.is_file()), None)


def _listed_splits(folder: Path) -> dict[str, str]:
    """The split of each picture that lists name, by its name without a suffix."""
    found = {}
    for split, _, lines in _lists(folder):
        for words in lines:
            if len(words) == 1:
                name = words[0]
                stem = name[: -len(suffix)] if (suffix := PurePath(name).suffix).lower() in SUFFIXES else name
                found[unicodedata.normalize("NFC", stem)] = split
    return found
