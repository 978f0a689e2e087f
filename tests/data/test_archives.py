"""Archives of strangers: nothing is written outside the folder, nothing damaged passes, nothing grows without limit."""

import bz2
import contextlib
import gzip
import io
import lzma
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from packs import files_in
from tiers import examples

from oneformer_jax.data.storage import archives
from oneformer_jax.data.storage.archives import is_archive, unpack
from oneformer_jax.errors import DataError

FILES = {"set/images/a.jpg": bytes(range(256)) * 40, "set/images/empty.jpg": b"", "set/b.json": b"[1, 2]" * 2000}


def tar(members: dict[str, bytes | tuple[bytes, str]], *, compress: Callable[[bytes], bytes] = bytes) -> bytes:
    """A tar file; a member is its content, or its type and where it points."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            if isinstance(content, tuple):
                info.type, info.linkname = content
                archive.addfile(info)
            else:
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))
    return compress(buffer.getvalue())


def packed(members: dict[str, bytes], kinds: dict[str, int] | None = None) -> bytes:
    """A zip file; `kinds` are file types as Unix writes them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (kinds or {}).get(name, 0) << 16
            archive.writestr(info, content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


WAYS = {
    "a.tar": lambda: tar(FILES),
    "a.tar.gz": lambda: tar(FILES, compress=gzip.compress),
    "a.tgz": lambda: tar(FILES, compress=gzip.compress),
    "a.tar.bz2": lambda: tar(FILES, compress=bz2.compress),
    "a.tar.xz": lambda: tar(FILES, compress=lzma.compress),
    "a.zip": lambda: packed(FILES),
}


@pytest.fixture
def unpacked(tmp_path: Path) -> Callable[[bytes], dict[str, bytes]]:
    """Unpacks an archive and returns the files it became; nothing else may appear anywhere near."""

    def run(content: bytes) -> dict[str, bytes]:
        (tmp_path / "archive").write_bytes(content)
        folder = tmp_path / "deep" / "folder"
        folder.mkdir(parents=True)
        unpack(tmp_path / "archive", folder)
        return files_in(folder)

    yield run
    assert {path.name for path in tmp_path.iterdir()} <= {"archive", "deep"}
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["folder"]


@pytest.mark.parametrize("name", WAYS)
def test_every_format_is_told_by_its_content(name: str, unpacked: Callable[[bytes], dict[str, bytes]]) -> None:
    assert is_archive(name)
    assert is_archive(name.upper())
    assert unpacked(WAYS[name]()) == FILES


@pytest.mark.parametrize("name", ["a.json", "images", "tar", "a.gz", "model.pth", "a.tar.json"])
def test_other_names_are_no_archives(name: str) -> None:
    assert not is_archive(name)


def test_progress_is_the_part_of_the_archive_that_is_read(tmp_path: Path) -> None:
    content = WAYS["a.tar.gz"]()
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "folder").mkdir()
    heard: list[int] = []
    unpack(tmp_path / "a", tmp_path / "folder", heard.append)
    assert heard == sorted(heard)
    assert 0 < heard[-1] <= len(content)


@pytest.mark.parametrize(
    "name", ["../out", "a/../../out", "/tmp/out", "..\\out", "a\\..\\..\\out", "//out", "..", "a/../b"]
)
@pytest.mark.parametrize("way", [tar, packed])
def test_names_that_lead_outside(way: Callable[..., bytes], name: str, unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="would be written outside the folder"):
        unpacked(way({"first": b"1", name: b"2"}))


@pytest.mark.parametrize(
    "members",
    [
        {"link": (tarfile.SYMTYPE, "../out")},
        {"link": (tarfile.SYMTYPE, "/etc/passwd")},
        {"a/b/link": (tarfile.SYMTYPE, "../../../out")},
        {"up": (tarfile.SYMTYPE, "a/.."), "a": (tarfile.SYMTYPE, "up/../.."), "a/x": (tarfile.SYMTYPE, "y")},
        {"a": (tarfile.SYMTYPE, "b/c/../.."), "b/c": (tarfile.SYMTYPE, "."), "b/d": b"1"},
        {"link": (tarfile.LNKTYPE, "/etc/passwd")},
        {"link": (tarfile.LNKTYPE, "../../archive")},
        {"link": (tarfile.LNKTYPE, "nothing")},
    ],
    ids=str,
)
def test_links_that_lead_outside(
    members: dict[str, bytes | tuple[bytes, str]], unpacked: Callable[..., object]
) -> None:
    with pytest.raises(DataError, match=r"is a link to|would be written outside"):
        unpacked(tar(members))


def test_a_link_of_a_zip_that_leads_outside(unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match=r"'link' is a link to '\.\./out', outside the folder"):
        unpacked(packed({"link": b"../out"}, {"link": stat.S_IFLNK}))


def test_links_inside_are_kept(unpacked: Callable[[bytes], dict[str, bytes]], tmp_path: Path) -> None:
    links = {"images": (tarfile.SYMTYPE, "set/images"), "set/c.json": (tarfile.LNKTYPE, "set/b.json")}
    assert unpacked(tar(FILES | links)) == FILES | {"set/c.json": FILES["set/b.json"]}
    assert (tmp_path / "deep" / "folder" / "images" / "a.jpg").read_bytes() == FILES["set/images/a.jpg"]


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_devices_and_pipes(kind: bytes, unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="'null' is a device, a pipe or a socket"):
        unpacked(tar({"null": (kind, "")}))


def test_a_device_of_a_zip(unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="'null' is a device"):
        unpacked(packed({"null": b""}, {"null": stat.S_IFCHR}))


def test_a_file_is_never_written_through_a_link(unpacked: Callable[..., object], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"'link' is a link to '.*/deep' and a folder with files\n.*do not trust"):
        unpacked(tar({"link": (tarfile.SYMTYPE, str(tmp_path / "deep")), "link/new": b"1"}))


def test_one_name_for_a_file_and_a_folder(unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="damaged"):
        unpacked(tar({"a": b"1", "a/b": b"2"}))


def test_what_macos_adds_is_left_out(unpacked: Callable[[bytes], dict[str, bytes]]) -> None:
    added = {"__MACOSX/set/._b.json": b"x", "set/._b.json": b"x", "set/.DS_Store": b"x"}
    assert unpacked(packed(FILES | added)) == FILES


def test_a_repeated_name_means_its_last_content(unpacked: Callable[[bytes], dict[str, bytes]]) -> None:
    (first := tarfile.TarInfo("a")).size = 1
    (second := tarfile.TarInfo("a")).size = 2
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(first, io.BytesIO(b"1"))
        archive.addfile(second, io.BytesIO(b"22"))
    assert unpacked(buffer.getvalue()) == {"a": b"22"}


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>404 Not Found</html>" * 100, b"\x1f\x8b", b"PK\x03\x04", gzip.compress(b"no tar" * 1000), b"x" * 512],
    ids=["empty", "web page", "only gzip's mark", "only zip's mark", "gzip of something else", "one block"],
)
def test_what_is_no_archive(content: bytes, unpacked: Callable[..., object]) -> None:
    with pytest.raises(DataError, match="damaged, incomplete or not an archive"):
        unpacked(content)


def test_a_zip_that_needs_a_password(unpacked: Callable[..., object]) -> None:
    content = bytearray(packed({"a": b"1"}))
    content[6] |= 1  # of the file's own header, and of the table of contents
    content[content.index(b"PK\x01\x02") + 8] |= 1
    with pytest.raises(DataError, match="password"):
        unpacked(bytes(content))


@pytest.mark.parametrize("name", WAYS)
def test_an_archive_cut_anywhere_is_refused_or_whole(name: str, tmp_path: Path) -> None:
    content = WAYS[name]()
    cuts = {round(i * len(content) / 40) for i in range(40)} | {len(content) - 1, len(content) - 8}
    for cut in sorted(cuts | set(range(0, len(content), 512)[:20])):
        try:
            found = unpack_again(tmp_path, content[:cut])
        except DataError:
            continue
        assert found == FILES
        assert name == "a.tar", cut  # whose padding may be missing
        assert not content[cut:].strip(b"\0")


def test_a_header_that_is_damaged_ends_no_archive(tmp_path: Path) -> None:
    content = bytearray(tar(FILES))
    content[content.index(b"set/b.json") + 1] ^= 1
    with pytest.raises(DataError, match="the end is missing"):
        unpack_again(tmp_path, bytes(content))


def test_a_check_sum_that_is_wrong(tmp_path: Path) -> None:
    content = bytearray(WAYS["a.tar.gz"]())
    content[-8] ^= 1
    with pytest.raises(DataError, match="CRC"):
        unpack_again(tmp_path, bytes(content))
    content = bytearray(WAYS["a.zip"]())
    place = content.index(b"set/b.json") + 20
    content[place] ^= 255
    with pytest.raises(DataError, match="damaged"):
        unpack_again(tmp_path, bytes(content))


@pytest.mark.parametrize("compress", [gzip.compress, bz2.compress, lambda data: lzma.compress(data, preset=0)])
def test_zeros_behind_the_files_have_an_end(
    compress: Callable[[bytes], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A few kilobytes may hold gigabytes of them, which are no files and count for no limit of files."""
    monkeypatch.setenv("ONEFORMER_ARCHIVE_LIMIT_GB", "0.001")
    monkeypatch.setattr(archives, "MOST_HEADERS", 2**20)
    content = tar({"a": b"1"}, compress=lambda data: data)
    assert unpack_again(tmp_path, compress(content + bytes(2**20))) == {"a": b"1"}
    with pytest.raises(DataError, match="goes on far behind its files"):
        unpack_again(tmp_path, compress(content + bytes(2**23)))


@pytest.mark.parametrize("way", [lambda files: tar(files, compress=gzip.compress), packed])
@pytest.mark.parametrize("files", [{"zeros": bytes(2**20)}, {f"{i}": b"" for i in range(200)}], ids=["large", "many"])
def test_bombs(
    way: Callable[..., bytes], files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "ALWAYS_ALLOWED", 2**19)
    monkeypatch.setattr(archives, "MOST_GROWTH", 2)
    content = way(files)
    with pytest.raises(DataError, match=r"(?s)unpacks to more than 0\.0 GB.*ONEFORMER_ARCHIVE_LIMIT_GB"):
        unpack_again(tmp_path, content)
    written = sum(map(len, files_in(tmp_path / "folder").values()))
    assert written <= 2**19
    monkeypatch.setenv("ONEFORMER_ARCHIVE_LIMIT_GB", "0.01")
    assert unpack_again(tmp_path, content) == files
    monkeypatch.setenv("ONEFORMER_ARCHIVE_LIMIT_GB", "10 GB")
    with pytest.raises(DataError, match="'10 GB' is not a number of gigabytes"):
        unpack_again(tmp_path, content)


def test_a_header_larger_than_memory_is_not_read(tmp_path: Path) -> None:
    info = tarfile.TarInfo("comment")
    info.type, info.size = tarfile.XHDTYPE, 2**32
    with pytest.raises(DataError, match="a header is too large"):
        unpack_again(tmp_path, gzip.compress(info.tobuf() + bytes(2**20)))


def test_the_disk_is_not_filled_to_the_last_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives.shutil, "disk_usage", lambda _: SimpleNamespace(free=20_000))
    with pytest.raises(OSError, match="No space left on device"):
        unpack_again(tmp_path, WAYS["a.zip"]())


@settings(max_examples=examples(200))
@given(data=st.data())
def test_damage_anywhere_is_told_or_harmless(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(WAYS)))
    content = bytearray(WAYS[name]())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    with tempfile.TemporaryDirectory() as folder, contextlib.suppress(DataError):
        unpack_again(Path(folder), bytes(content))


def unpack_again(folder: Path, content: bytes) -> dict[str, bytes]:
    """Unpacks into a new folder in `folder`, so that a test can do it often."""
    shutil.rmtree(folder / "folder", ignore_errors=True)
    (folder / "folder").mkdir()
    (folder / "archive").write_bytes(content)
    unpack(folder / "archive", folder / "folder")
    return files_in(folder / "folder")
