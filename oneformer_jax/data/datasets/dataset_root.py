"""The place that holds all files of a data set, a folder, an archive or an address, entered by their names.

Jobs look into it where nothing that opens a data set is installed.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from oneformer_jax.data.storage import addresses
from oneformer_jax.data.storage.addresses import explained, is_address, shown
from oneformer_jax.data.storage.archives import SUFFIXES, is_archive
from oneformer_jax.data.storage.cache import local_path
from oneformer_jax.data.storage.folders import entries, innermost
from oneformer_jax.errors import DataError

# What a folder is called in docs/data-formats.md, besides the name of the archive without its suffix.
_FOLDERS = {"images_panoptic": ("images_panoptic", "panoptic")}


@dataclass(frozen=True)
class DatasetRoot:
    """`location` as it was given, `place` the folder or address that holds the files, and their `names`.

    `names` is None for a web server, which does not list them.
    """

    location: str
    place: str
    names: frozenset[str] | None

    def find(self, name: str) -> str | None:
        """The location of the file `name`, None where there is none.

        An archive `images.tar.gz` may have another format (`images.zip`) or be unpacked (`images`).
        Raises DataError where the server does not answer.
        """
        return next((self.at(candidate) for candidate in candidates(name) if self._holds(candidate)), None)

    def at(self, name: str) -> str:
        """The location of `name`, whether it is there or not."""
        return f"{self.place}/{name}" if is_address(self.place) else str(Path(self.place) / name)

    def holds_images(self) -> bool:
        """Whether images lie in it side by side: it is then no data set, but a folder of images."""
        # With NumPy, which `--help` need not wait for.
        from oneformer_jax.data.datasets.images import SUFFIXES as IMAGES

        return any(PurePosixPath(name).suffix.lower() in IMAGES for name in self.names or ())

    def described(self) -> str:
        """What it holds, for messages."""
        if self.names is None:
            return "which does not list its files"
        found = sorted(self.names)
        rest = f", ... ({len(found)} in all)" if len(found) > 8 else ""
        return f"which holds {', '.join(found[:8])}{rest}" if found else "which is empty"

    def _holds(self, name: str) -> bool:
        return name in self.names if self.names is not None else addresses.exists(self.at(name))


def open_root(location: str, *, known: Collection[str], what: str) -> DatasetRoot:
    """The root at `location`; an archive is unpacked, and fetched before, once for each content.

    A folder that holds nothing but another one stands for that, unless it has a name that a file of `known` may have.
    `what` says `location`, for messages. Raises DataError: not there, not accessible, an archive that cannot be used.
    """
    if is_address(location):
        try:
            with explained(location):
                is_folder = not is_archive(addresses.file_name(location))
                names = addresses.names_in(location) if is_folder else None
        except DataError as error:
            raise DataError(error.what, where=f"{what}: {shown(location)}", hint=error.hint) from error
        if is_folder:
            return DatasetRoot(location, location.rstrip("/"), names)
    folder = local_path(location, what=what)
    if not folder.is_dir():
        raise DataError(
            "this is a file, not the root of a data set",
            where=f"{what}: {shown(location)}",
            hint="give a folder, an archive (.tar.gz, .zip) or an address that holds annotations.json, images, ...",
        )
    expected = {candidate for name in known for candidate in candidates(name)}
    folder = innermost(folder, named=expected)
    return DatasetRoot(location, str(folder), frozenset(path.name for path in entries(folder)))


def candidates(name: str) -> Iterator[str]:
    """The names that may stand for `name`, the best first."""
    yield name
    if (suffix := next((end for end in SUFFIXES if name.endswith(end)), "")) == "":
        return
    stem = name.removesuffix(suffix)
    yield from (stem + other for other in SUFFIXES if other != suffix)
    yield from _FOLDERS.get(stem, (stem,))
