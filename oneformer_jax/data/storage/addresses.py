"""What lies at an address such as s3://, gs:// or https://, and its download, by fsspec and the clients it finds."""

import re
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from oneformer_jax.data.storage.archives import inside
from oneformer_jax.data.storage.folders import is_hidden, is_litter
from oneformer_jax.errors import DISK_FULL, DataError, install_hint

BLOCK = 2**25  # bytes of one request
FILES_AT_ONCE = 256
STALLED = 120  # seconds without a byte
PAUSE = 1.0  # seconds before a download that broke off is continued

# What file systems call the facts by which a changed file is recognised.
_TAGS = ("ETag", "etag", "md5Hash", "content_md5")
_DATES = ("Last-Modified", "LastModified", "mtime", "updated", "created")

PREPARED = "tfds://"
"""In front of a folder of prepared data."""
REDACTED = "<redacted>"
"""In place of what is not written down."""

_LOCAL = ("tfds", "file")
# A password may hold what ends an address elsewhere; one slash is what is left of two in a path.
_ADDRESS = re.compile(
    r"(?:[A-Za-z][\w+.-]*://|(?<![\w.@])(?:https?|s3|gs|ftp):/(?!/)|(?<![\w:/.])//(?=[^\s/@]*:[^\s@]*@))"
    r"(?:[^\s/@]*:[^\s@]*@)?[^\s'\"<>]*"
)
# A user with a password, which may hold any character, or a user alone; digits after a colon are a port.
_USER = re.compile(r"(?:[^/@]*:(?!\d*(?:[/?#]|$))[^@]*@|[^/?#]*@)(?:[^/?#]*@)?", re.DOTALL)

_SCHEME = re.compile(r"(?:(?P<scheme>[A-Za-z][\w+.-]*)://|(?:https?|s3|gs|ftp):/|//)")
_QUERY = re.compile(r"[?#;]")

# Names of errors: the packages that define them need not be installed.
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError", "DefaultCredentialsError", "RefreshError"}
_NO_CONNECTION = {"ClientConnectionError", "HTTPClientError", "ConnectionError", "TimeoutError", "gaierror"}
_LOGIN = {
    "s3": "set AWS_PROFILE or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (FSSPEC_S3_ANON=true for public buckets)",
    "gs": "run `gcloud auth application-default login` or set GOOGLE_APPLICATION_CREDENTIALS",
}


class AbsentError(DataError):
    """There is nothing at an address."""


class UnreachableError(DataError):
    """No server answers at an address."""


@dataclass(frozen=True)
class RemoteFile:
    """A file as its file system names it; `name` is relative to the address.

    `version` changes with the content; "" where the server says nothing of the kind, as a date or a tag.
    """

    path: str
    name: str
    size: int | None
    version: str


@dataclass(frozen=True)
class Listing:
    """The one file at an address, or every file below a prefix."""

    filesystem: Any
    files: tuple[RemoteFile, ...]
    is_folder: bool

    @property
    def size(self) -> int | None:
        """Bytes of all files, None if the server does not say."""
        sizes = [file.size for file in self.files if file.size is not None]
        return sum(sizes) if len(sizes) == len(self.files) else None


def is_address(location: str) -> bool:
    """Whether `location` is an address, not a path."""
    return "://" in location


def shown(location: str) -> str:
    """A path as it is; an address without what may be secret: user, password and the query of signed addresses."""
    start = _SCHEME.match(location)
    if start and start["scheme"] in _LOCAL and _SCHEME.match(location, start.end()):  # tfds://https://...
        return f"{start[0]}{shown(location[start.end() :])}"
    if not start or start["scheme"] in _LOCAL:
        return location
    rest = location[start.end() :]
    user = _USER.match(rest)
    rest = f"{REDACTED}@{rest[user.end() :]}" if user else rest
    if start["scheme"] is None:  # no address, unless it names a user
        return f"{start[0]}{rest}" if user else location
    query = _QUERY.search(rest)
    return f"{start[0]}{rest[: query.end()]}{REDACTED}" if query and query.end() < len(rest) else f"{start[0]}{rest}"


def redacted(value: Any) -> Any:
    """Text, or data that holds texts, with every address in it as it may be `shown`."""
    if isinstance(value, dict):
        return {name: redacted(element) for name, element in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(redacted(element) for element in value)
    if not isinstance(value, str):
        return value
    text = _ADDRESS.sub(lambda match: shown(match[0]), value)
    return value if text == value else redacted(text)  # what was hidden may have hidden where another address begins


def file_name(location: str) -> str:
    """The last part of an address. Raises DataError: it is none, as where a bracket is not closed."""
    try:
        parts = urlsplit(location)
    except ValueError:  # whose words may hold a password
        hint = "correct the address; in a user or password, write %5B for [ and %5D for ]"
        raise DataError("not a valid address: its host cannot be read", hint=hint) from None
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc.rpartition("@")[2]


def look_up(location: str) -> Listing:
    """What is at `location`; nothing is downloaded. Raises what fsspec or its client raises, see `explained`."""
    filesystem, path = _client(location, **_options(location))
    found = filesystem.info(path)
    if found["type"] == "file":
        return Listing(filesystem, (_remote_file(path, file_name(location), found),), is_folder=False)
    root = path.rstrip("/") + "/"
    below = sorted(filesystem.find(path, detail=True).items())
    files = [_remote_file(name, name.removeprefix(root), facts) for name, facts in below if not name.endswith("/")]
    files = [file for file in files if not is_litter(PurePosixPath(file.name))]
    return Listing(filesystem, tuple(files), is_folder=True)


def names_in(location: str) -> frozenset[str] | None:
    """What the folder at `location` holds, no deeper; None if the server does not say. Raises as `look_up` does."""
    if location.startswith(("http://", "https://")):
        return None
    filesystem, path = _client(location)
    found = filesystem.ls(path, detail=False)
    names = {name.rstrip("/").rpartition("/")[2] for name in found if name.rstrip("/") != path.rstrip("/")}
    return frozenset(name for name in names if not is_hidden(PurePosixPath(name)))


def exists(location: str) -> bool:
    """Whether there is something at `location`. Raises DataError if that cannot be determined."""
    try:
        with explained(location):
            look_up(location)
    except AbsentError:
        return False
    except DataError as error:
        raise DataError(error.what, where=shown(location), hint=error.hint) from error
    return True


def _client(location: str, **options: Any) -> tuple[Any, str]:
    """fsspec's file system for an address, and what it calls the place."""
    if REDACTED in location:
        raise DataError(
            "its password or signature was not stored", hint="give the whole address again, in the spec or an override"
        )
    import fsspec

    filesystem, path = fsspec.core.url_to_fs(location, **options)
    filesystem.invalidate_cache()
    return filesystem, path


def _options(location: str) -> dict[str, Any]:
    if not location.startswith(("http://", "https://")):
        return {}
    import aiohttp

    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=STALLED)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}  # the environment names proxies


def _remote_file(path: str, name: str, facts: dict[str, Any]) -> RemoteFile:
    known = [f"{fact}={facts[fact]}" for fact in (*_TAGS, *_DATES) if facts.get(fact)]
    if known:
        known += [f"size={facts['size']}"] * bool(facts.get("size"))
        # With a tag, the query of a signed address, which differs each time, adds no information.
        known = known if any(facts.get(tag) for tag in _TAGS) else [path, *known]
    return RemoteFile(path, name, facts.get("size"), "; ".join(known))


def download(listing: Listing, part: Path, progress: Callable[[int], object]) -> None:
    """Completes the file `part`, which is not there or holds the first bytes; `progress` hears how many it holds.

    A connection that breaks off is taken up again as long as that brings something. What has come stays in `part`
    when an error ends it, unless the file has changed meanwhile.
    """
    (file,) = listing.files
    while True:
        before = _length(part)
        try:
            _continue(listing.filesystem, file, part, progress)
            break
        except Exception:
            if _length(part) <= before:
                raise
            time.sleep(PAUSE)
    listing.filesystem.invalidate_cache()
    now = _remote_file(file.path, file.name, listing.filesystem.info(file.path))
    if now != file or file.size not in (None, _length(part)):
        part.unlink()
        raise _changed()


def download_folder(listing: Listing, folder: Path, progress: Callable[[int], object]) -> None:
    """Completes `folder`, which holds some of the files or none; `progress` hears how many bytes it holds.

    What has come stays in `folder` when an error ends it: it holds files of this listing only.
    """
    paths = {file: inside(folder, file.name) for file in listing.files}

    def missing() -> list[RemoteFile]:
        return [file for file, path in paths.items() if not path.is_file() or path.stat().st_size != file.size]

    folder.mkdir(exist_ok=True)
    rest = missing()
    done = sum(file.size or 0 for file in listing.files) - sum(file.size or 0 for file in rest)
    for start in range(0, len(rest), FILES_AT_ONCE):
        batch = rest[start : start + FILES_AT_ONCE]
        listing.filesystem.get([file.path for file in batch], [str(paths[file]) for file in batch])
        done += sum(file.size or 0 for file in batch)
        progress(done)
    if missing():
        shutil.rmtree(folder)
        raise _changed()


def _continue(filesystem: Any, file: RemoteFile, part: Path, progress: Callable[[int], object]) -> None:
    try:
        _append(filesystem.open(file.path, "rb", block_size=BLOCK, cache_type="none"), part, progress)
    except ValueError:  # how fsspec says that a web server sends whole files only
        part.unlink(missing_ok=True)
        _append(filesystem.open(file.path, "rb", block_size=0), part, progress)


def _append(source: Any, part: Path, progress: Callable[[int], object]) -> None:
    with source, part.open("ab") as target:
        source.seek(target.tell())
        while block := source.read(BLOCK):
            target.write(block)
            target.flush()
            progress(target.tell())


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def _changed() -> DataError:
    return DataError("changed while it was being downloaded", hint="start again")


@contextmanager
def explained(location: str) -> Iterator[None]:
    """Makes a DataError of what fsspec and the client library behind it raise, not of errors of the local disk."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and (error.filename is not None or error.errno in DISK_FULL):
            raise  # the clients name no file in their messages
        raise _explain(error, location) from error


def _without_secrets(text: str, location: str) -> str:
    """What a client says of an address, whole or in parts."""
    text = text.replace(location, shown(location))
    start = _SCHEME.match(location)
    rest = location[start.end() :] if start else location
    user, query = _USER.match(rest), _QUERY.search(rest)
    password = user[0].removesuffix("@").partition(":")[2] if user else ""
    for secret in (user and user[0], password, query and rest[query.end() :]):
        text = text.replace(secret, REDACTED) if secret else text
    return redacted(text)


def _explain(error: Exception, location: str) -> DataError:
    """What the error means for whoever gave the address."""
    causes = list(_causes(error))
    kinds = {kind.__name__ for cause in causes for kind in type(cause).__mro__}
    status = next((cause.status for cause in causes if hasattr(cause, "status")), None)
    login = _LOGIN.get(
        location.partition("://")[0], "a signed address may have expired, a private one needs to be signed"
    )
    reason = _without_secrets((str(error).strip() or type(error).__name__).splitlines()[0], location)
    if isinstance(error, ImportError):
        return DataError(f"needs a package that is missing: {error}", hint=install_hint("remote"))
    if kinds & _NO_CREDENTIALS:
        return DataError("no credentials were found for this address", hint=login)
    if status in (401, 403) or "PermissionError" in kinds:
        return DataError(f"access is denied (status {status or 403})", hint=login)
    if status in (404, 410):
        return AbsentError(f"does not exist (status {status})", hint="check the address")
    if status is not None:
        return DataError(f"the server answered with status {status}", hint="try again later, or check the address")
    if kinds & _NO_CONNECTION:
        cause = next(cause for cause in causes if {kind.__name__ for kind in type(cause).__mro__} & _NO_CONNECTION)
        return UnreachableError(
            f"the server cannot be reached: {_without_secrets(str(cause), location)}",
            hint="check the address and the network",
        )
    if isinstance(error, FileNotFoundError):
        return AbsentError("does not exist (status 404)", hint="check the address")
    return DataError(f"cannot be fetched: {reason}", hint="check the address and the network")


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
