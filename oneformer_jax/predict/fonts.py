"""Fonts that have the letters of a text: Pillow's own where it has, else one that is installed. Nothing is fetched."""

import logging
import os
import unicodedata
from contextlib import suppress
from functools import cache, lru_cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageFont, features

Font = ImageFont.FreeTypeFont

logger = logging.getLogger(__name__)

_SUFFIXES = (".ttf", ".otf", ".ttc")
_USED_LAST = (
    *("bold", "italic", "oblique", "mono", "serif", "condensed", "light", "thin", "black"),
    *("math", "symbol", "emoji", "display"),
)
_LAST_RESORT = "lastresort"  # fonts that draw a box for every character
_CJK = ("CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "KANGXI")
_PROBE = 24.0  # pixels
_ABSENT = "\U0010ffff"  # no character: fonts draw it as they draw all that they lack
_INVISIBLE = ("Cc", "Cf", "Mn", "Me", "Zs", "Zl", "Zp")  # categories of characters without a glyph of their own


def font_for(text: str, size: float) -> Font:
    """A font with the letters of the text, `size` pixels high; Pillow's own where none that is installed has them."""
    return _opened(_path_for(text) or "", size)


def package_for(text: str) -> str:
    """What to install for the letters of a text, by its name in Debian and Ubuntu."""
    if _is_shaped(text) and not _shapes():
        return "libfribidi0 and a Pillow with Raqm, which join and turn letters"
    names = [unicodedata.name(char, "") for char in text if not char.isascii()]
    if any(name.startswith(_CJK) for name in names):
        return "fonts-noto-cjk"
    return "fonts-symbola" if any(unicodedata.category(c) == "So" for c in text) else "fonts-noto-core"


def drawable(text: str, instead: str) -> str:
    """The text where a font has its letters. Else, with a warning the first time, it loses its accents or, where that
    does not help, is `instead`."""
    if _path_for(text) is not None:
        return text
    bare = "".join(c for c in unicodedata.normalize("NFKD", text) if unicodedata.category(c) != "Mn")
    drawn = instead if _path_for(bare) is None else bare
    _warn(text, drawn)
    return drawn


@cache
def _warn(text: str, instead: str) -> None:
    logger.warning(
        "No installed font has the letters of '%s': drawn as '%s'. Install one, for example the package %s.",
        text,
        instead,
        package_for(text),
    )


@cache
def _path_for(text: str) -> str | None:
    """The file of a font with the letters of the text, "" for Pillow's own; None: there is none."""
    if _is_shaped(text) and not _shapes():
        return None
    letters = frozenset(letter for letter in text if unicodedata.category(letter) not in _INVISIBLE)
    for path in ("", *_installed()):
        with suppress(OSError):  # of pictures alone, or damaged
            if _has(_opened(path, _PROBE), letters):
                return path
    return None


@lru_cache(64)  # every size of a picture has a size of letters
def _opened(path: str, size: float) -> Font:
    font = ImageFont.truetype(path, size) if path else ImageFont.load_default(size)
    assert isinstance(font, Font)  # Pillow's wheels have FreeType
    return font


def _has(font: Font, letters: frozenset[str]) -> bool:
    absent = _drawn(font, _ABSENT)
    return all(_drawn(font, letter) not in (absent, (0, 0, b"")) for letter in letters)


def _drawn(font: Font, letter: str) -> tuple[int, int, bytes]:
    mask = font.getmask(letter)
    return (*mask.size, bytes(mask))


def _is_shaped(text: str) -> bool:
    """Whether letters run from right to left, join, or stand above each other."""
    return any(
        unicodedata.bidirectional(c) in ("R", "AL") or unicodedata.category(c) in ("Mn", "Mc")
        for c in unicodedata.normalize("NFC", text)
    )


@cache
def _shapes() -> bool:
    return bool(features.check("raqm")) and bool(features.check("fribidi"))


@cache
def _installed() -> tuple[str, ...]:
    """Font files of this machine, plain upright ones first."""
    shares = (os.environ.get("XDG_DATA_DIRS") or "/usr/local/share:/usr/share").split(":")
    own = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    folders = [f"{folder}/fonts" for folder in (own, *shares) if folder] + ["~/.fonts"]
    found = [path for folder in folders for path in Path(os.path.expanduser(folder)).rglob("*")]
    if (matplotlib := find_spec("matplotlib")) is not None and matplotlib.origin:  # it brings one of many scripts
        found += (Path(matplotlib.origin).parent / "mpl-data" / "fonts" / "ttf").glob("DejaVuSans.ttf")
    names = {str(p): p.name.lower() for p in found if p.suffix.lower() in _SUFFIXES}
    usable = [path for path, name in names.items() if not name.startswith(_LAST_RESORT)]
    return tuple(sorted(usable, key=lambda path: (any(word in names[path] for word in _USED_LAST), names[path])))
