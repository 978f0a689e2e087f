"""YAML text to plain data that remembers on which line each key is written, and the problems of a spec.

All problems are collected, and one error names them all, a line each.
"""

import difflib
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from oneformer_jax.data.storage.addresses import REDACTED, is_address, redacted
from oneformer_jax.errors import SpecError


@dataclass(frozen=True)
class Problem:
    """What is wrong, `where` it is written and what to do."""

    what: str
    where: str = ""
    hint: str = ""

    def __str__(self) -> str:
        return "".join([self.where and f"{self.where}: ", self.what, self.hint and f"; {self.hint}"])


@dataclass(frozen=True)
class Source:
    """The data of a spec file, the place (`file:line`) of every dotted key, and keys written twice."""

    data: dict[Any, Any]
    places: dict[str, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def place(self, path: str) -> str:
        """Where the key, or the nearest section above it, is written; "" when nothing of it is."""
        while path and path not in self.places:
            path = path.rpartition(".")[0]
        return self.places.get(path, "")


SECRET_NAME = re.compile(r"key|token|secret|password|passwd|credentials?", re.IGNORECASE)
_SECRET_IN_LINE = re.compile(rf"([\w.]{{0,100}}(?:{SECRET_NAME.pattern}))[\"']?\s*:", re.IGNORECASE)


def is_secret(path: str) -> bool:
    """Whether a dotted key, by its name, holds what nobody else may read: its value is never written or printed."""
    return any(re.search(f"(?:{SECRET_NAME.pattern})$", name, re.IGNORECASE) for name in path.split("."))


DEEPEST, MOST_VALUES, LARGEST = 50, 100_000, 2**20
"""How deeply a spec may be nested, how many values and how many bytes it may have."""


class SpecLoader(yaml.SafeLoader):
    """The YAML that OmegaConf reads: `1e-5` is a number, a date is text."""


FLOAT = re.compile(
    r"^(?:[-+]?(?:\d[\d_]*\.[\d_]*(?:[eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|\.\d[\d_]*(?:[eE][-+]?\d+)?)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
REPLACED = ("tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
SpecLoader.yaml_implicit_resolvers = {
    first: [(tag, rule) for tag, rule in rules if tag not in REPLACED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
SpecLoader.add_implicit_resolver(REPLACED[0], FLOAT, list("-+0123456789."))


class OtherBase(yaml.constructor.ConstructorError):
    """A number that YAML reads in another base than people do."""


OTHER_BASE = re.compile(r"[-+]?(0[0-9_]|.*:)")
"""What YAML 1.1 takes for a number of base 8 or 60 and people do not: 010, 1:30."""


def _whole_number(loader: SpecLoader, node: yaml.ScalarNode) -> int:
    if OTHER_BASE.match(node.value):
        value = loader.construct_yaml_int(node)
        what = f"{node.value} is {value} in YAML: write {value}, or put text in quotes"
        raise OtherBase(None, None, what, node.start_mark)
    value = loader.construct_yaml_int(node)
    if value.bit_length() > 10_000:
        raise ValueError(f"a whole number of {value.bit_length()} bits")
    return int(value)


SpecLoader.add_constructor("tag:yaml.org,2002:int", _whole_number)


class SpecDumper(yaml.SafeDumper):
    """Quotes what `SpecLoader` would read as something else than text, such as 1e-4."""


SpecDumper.add_implicit_resolver(REPLACED[0], FLOAT, list("-+0123456789."))


def yaml_text(value: Any, *, flow: bool = False) -> str:
    """YAML that is read as an equal value, with the keys in their order; `flow`: in one line."""
    width = math.inf if flow else 120
    return yaml.dump(value, Dumper=SpecDumper, sort_keys=False, default_flow_style=flow, width=width)


def parse_value(text: str) -> Any:
    """One YAML value. Raises yaml.YAMLError."""
    loader = SpecLoader(text)
    node = _composed(loader)
    return None if node is None else loader.construct_document(node)


def _composed(loader: SpecLoader) -> yaml.Node | None:
    """The one document of YAML. Raises yaml.YAMLError: none, or one that no program can work with.

    An alias stands for what it names without taking memory, until somebody walks through it: nine lines can so name
    10^9 values. Nesting has an end where Python's stack has one.
    """
    try:
        node = loader.get_single_node()
    except RecursionError:
        raise yaml.YAMLError("it is nested too deeply") from None
    sizes: dict[int, int] = {}

    def size(node: yaml.Node, depth: int) -> int:
        if isinstance(node, yaml.ScalarNode):
            return 1
        if depth > DEEPEST:
            what = "a section contains itself, or sections are nested too deeply"
            raise yaml.constructor.ConstructorError(None, None, what, node.start_mark)
        if id(node) not in sizes:
            parts = [part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,))]
            sizes[id(node)] = 1 + sum(size(part, depth + 1) for part in parts)
        return sizes[id(node)]

    if node is not None and size(node, 0) > MOST_VALUES:
        raise yaml.YAMLError(f"it stands for more than {MOST_VALUES} values: its aliases repeat each other")
    return node


def read_yaml(path: Path) -> Source:
    """Raises SpecError when the file is missing, is no YAML, or its top is no mapping."""
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST + 1)  # of a pipe or a device, too, whose size nobody knows
        if len(content) > LARGEST:
            raise SpecError(f"more than {LARGEST // 2**20} MiB are too much for a spec file", where=str(path))
        text = content.decode().replace("\r\n", "\n").replace("\r", "\n")
    except FileNotFoundError:
        raise SpecError("spec file not found", where=str(path)) from None
    except IsADirectoryError:
        raise SpecError("this is a folder, not a spec file (YAML)", where=str(path)) from None
    except UnicodeDecodeError as error:
        raise SpecError(f"this is not UTF-8 text (byte {error.start})", where=str(path)) from None
    except OSError as error:
        raise SpecError(f"spec file cannot be read: {error.strerror}", where=str(path)) from None
    try:
        loader = SpecLoader(text)
        node = _composed(loader)
        source = Source({})
        if isinstance(node, yaml.MappingNode):
            _locate(node, "", str(path), source, frozenset())
            source.data.update(loader.construct_document(node))
        elif node is not None and node.tag != "tag:yaml.org,2002:null":
            found = loader.construct_document(node)
            named = SECRET_NAME.search(str(found))
            raise SpecError(
                f"found {describe(found, named[0] if named else '')}, expected sections with keys",
                where=f"{path}:{node.start_mark.line + 1}",
            )
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        tab = "\\t" in (error.problem or "")
        lines = text.splitlines()
        marks = [found.line for found in (error.problem_mark, error.context_mark) if found and found.line < len(lines)]
        secret = next((found for line in marks if (found := _SECRET_IN_LINE.search(lines[line]))), None)
        raise SpecError(
            f"not valid YAML: {f'the value of {secret[1]}' if secret else error.problem or error.context}",
            where=f"{path}:{mark.line + 1}" if mark else str(path),
            hint="indent with spaces, not tabs" if tab else "put the value in quotes" if secret else "",
        ) from None
    except (yaml.YAMLError, ValueError, TypeError, OverflowError) as error:  # TypeError: a key that is a list
        raise SpecError(f"not valid YAML: {error}", where=str(path)) from None
    return source


def _locate(node: yaml.MappingNode, prefix: str, path: str, source: Source, above: frozenset[int]) -> None:
    """Notes the line of every key below `node`. Keys merged in with `<<` are noted where they are written."""
    if id(node) in above:
        raise SpecError("a section contains itself", where=f"{path}:{node.start_mark.line + 1}")
    seen: dict[str, int] = {}
    for name_node, value in node.value:
        line = name_node.start_mark.line + 1
        if name_node.tag == "tag:yaml.org,2002:merge":
            merged = value.value if isinstance(value, yaml.SequenceNode) else [value]
            for mapping in merged:
                if isinstance(mapping, yaml.MappingNode):
                    _locate(mapping, prefix, path, source, above | {id(node)})
            continue
        if name_node.tag == "tag:yaml.org,2002:null":
            what = f"found {name_node.value or 'nothing'} in place of the name of a key"
            hint = "write a name before the colon, in quotes if it is null or ~"
            raise SpecError(what, where=f"{path}:{line}", hint=hint)
        name = str(name_node.value)
        key = prefix + name
        if name in seen:
            what = f"{key}: written twice, first on line {seen[name]}"
            source.problems.append(Problem(what, f"{path}:{line}", "keep one of them"))
        seen.setdefault(name, line)
        source.places[key] = f"{path}:{line}"
        if isinstance(value, yaml.MappingNode):
            _locate(value, f"{key}.", path, source, above | {id(node)})


def at_home(value: Any) -> Any:
    """The locations of a value with the home folder in place of a `~`, also in that of prepared data (tfds://~/...)."""
    if isinstance(value, list | tuple):
        return [at_home(element) for element in value]
    if isinstance(value, dict):
        return {name: at_home(element) for name, element in value.items()}
    if not isinstance(value, str) or "~" not in value:
        return value
    scheme, separator, path = value.rpartition("://")
    return f"{scheme}{separator}{os.path.expanduser(path)}" if scheme in ("", "tfds") else value


def absolute(value: Any) -> Any:
    """The locations of a value as they mean the same in another folder; interpolations and addresses stay."""
    if isinstance(value, list | tuple):
        return [absolute(element) for element in value]
    if isinstance(value, dict):
        return {name: absolute(element) for name, element in value.items()}
    if not isinstance(value, str) or value in ("", "???") or "${" in value or is_address(value):
        return value
    return str(Path(os.path.expanduser(value)).absolute())


MOST_LISTED = 100
"""Problems of a spec that a message names."""


def describe(value: Any, path: str = "") -> str:
    """A value and its kind, short enough for a message; of a key at `path` that is secret the kind alone."""
    kinds = {
        bool: "a truth value",
        int: "a whole number",
        float: "a number",
        str: "text",
        list: "a list",
        dict: "a section",
    }
    text = str(value).lower() if isinstance(value, bool) else redacted(repr(value))
    text = REDACTED if is_secret(path) else text
    return f"{text if len(text) <= 60 else text[:57] + '...'} ({kinds.get(type(value), type(value).__name__)})"


def raise_all(problems: Sequence[Problem], source: str) -> None:
    """Raises SpecError with all problems, in the order found; returns when there is none."""
    if len(problems) == 1:
        raise SpecError(problems[0].what, where=problems[0].where, hint=problems[0].hint)
    if problems:
        more = [f"... and {len(problems) - MOST_LISTED} more"] * (len(problems) > MOST_LISTED)
        listed = map(str, problems[:MOST_LISTED])
        raise SpecError("\n  ".join([f"{len(problems)} problems", *listed, *more]), where=source)


def nearest(path: str, known: Sequence[str]) -> str:
    """The known dotted path that `path` most likely means, "" when none is near.

    A misspelt name in the right section comes first, then the right name in the wrong section, then any near path.
    """
    parent, _, name = path.rpartition(".")
    siblings = {other.lower(): other for other in known if other.rpartition(".")[0] == parent}
    found = difflib.get_close_matches(path.lower(), list(siblings), n=1, cutoff=0.0)
    if found and _ratio(name, found[0].rpartition(".")[2]) >= 0.75:
        return siblings[found[0]]
    elsewhere = [other for other in known if other.rpartition(".")[2].lower() == name.lower()]
    if elsewhere:
        return max(elsewhere, key=lambda other: _ratio(path, other))
    return next(iter(difflib.get_close_matches(path, known, n=1, cutoff=0.7)), "")


def _ratio(left: str, right: str) -> float:
    return difflib.SequenceMatcher(None, left.lower(), right.lower()).ratio()
