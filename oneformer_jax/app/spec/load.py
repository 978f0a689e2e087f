"""A spec file and overrides to a `Spec`.

Of the keys that are written, unknown ones are reported, `${...}` is resolved, blank and missing ones are left out.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException
from pydantic import ValidationError
from pydantic.fields import FieldInfo

from oneformer_jax.app.spec.dotted import (
    SYNONYMS,
    apply,
    merge,
    rename_synonyms,
    steps_to_resolve,
)
from oneformer_jax.app.spec.field import Section, expected, plain, subsection
from oneformer_jax.app.spec.source import (
    MOST_LISTED,
    Problem,
    Source,
    describe,
    is_secret,
    nearest,
    raise_all,
    read_yaml,
)
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.validate import disagreements


def load_spec(path: Path | None, overrides: Sequence[str] = ()) -> Spec:
    """Reads a TAO spec; without a file, overrides over the defaults.

    Blank values and `???` leave a key at its default; `require` says when one is needed. Raises
    SpecError that lists every problem: unknown and repeated keys, types, bounds, choices, contradictions.
    """
    source = read_yaml(Path(path)) if path else Source({})
    rename_synonyms(source)
    for text in overrides:
        apply(source, text)
    return load_source(source, str(path or "command line"))


def load_source(source: Source, origin: str) -> Spec:
    """The spec of what was read from `origin`. Raises SpecError that lists every problem, those of the source too."""
    rename_synonyms(source)
    values = _Resolver(source).read()
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        raise_all(source.problems + _mismatches(error, values, source), origin)
        raise  # a validation error that names no key would be a defect
    spec._places.update(source.places)
    raise_all(source.problems + disagreements(spec), origin)
    return spec


MOST_STEPS = 2000
"""Interpolations of a spec, where one that others lead to counts each time; OmegaConf takes a millisecond for each."""
LONGEST_PATH = 200
"""Letters of a key that a message shows, and up to which a known one like it is sought."""


class _Resolver:
    def __init__(self, source: Source) -> None:
        self.source = source
        self.known = [*_known_paths(Spec), *SYNONYMS]

    def read(self) -> dict[Any, Any]:
        """Nested values by key. Interpolations see the spec over its defaults, and the environment
        (`${oc.env:NAME}`)."""
        given = _without_blanks(Spec, self.source.data)
        whole = plain(Spec())
        try:
            merge(whole, given)  # OmegaConf's own merge would lose `???`
            steps = steps_to_resolve(whole)
            if steps > MOST_STEPS:
                self.report("", "its interpolations repeat each other too often")
                return {}
            seen = OmegaConf.create(whole if steps else given)  # only interpolations look at defaults, which take long
            return self.section(Spec, given, seen, "")
        except OmegaConfBaseException as error:
            path = error.full_key or ""
            self.report(path, f"{path or 'the spec'}: {_first_line(error, path)}")
        except RecursionError:
            self.report("", "an interpolation leads back to itself")
        return {}

    def section(self, kind: type[Section], given: Any, config: Any, prefix: str) -> dict[Any, Any]:
        """The values of one section. `given` names the keys, `config` holds them over the defaults."""
        values = {}
        for name in given:
            path = f"{prefix}{name}"
            field = kind.model_fields.get(name) if isinstance(name, str) else None
            if field is None:
                self.unknown(path)
                continue
            nested, value = subsection(field), self.value(path, name, config)
            if value is None:
                continue
            if nested is None:
                values[name] = OmegaConf.to_container(value, resolve=True) if isinstance(value, Container) else value
            elif isinstance(value, DictConfig):
                inner = given[name] if isinstance(given[name], dict) else value
                values[name] = self.section(nested, inner, value, f"{path}.")
            else:
                self.report(
                    path,
                    f"{path}: found {describe(value, path)}, expected a section",
                    f"it has {', '.join(nested.model_fields)}",
                )
        return values

    def value(self, path: str, name: str, config: DictConfig) -> Any:
        """The value of a key without interpolations; None when it has none or when it is wrong, which is reported."""
        try:
            value = None if OmegaConf.is_missing(config, name) else config[name]
            if isinstance(value, Container) and not isinstance(value, DictConfig):
                OmegaConf.to_container(value, resolve=True)  # elements that cannot be resolved belong to this key
            return value
        except InterpolationToMissingValueError:
            return None
        except OmegaConfBaseException as error:
            self.report(path, f"{path}: {_first_line(error, path)}")
            return None

    def unknown(self, path: str) -> None:
        is_of_use = len(path) <= LONGEST_PATH and len(self.source.problems) < MOST_LISTED
        near = nearest(path, self.known) if is_of_use else ""
        self.report(path, f"{path[:LONGEST_PATH]}: unknown key", f"did you mean {near}?" if near else "")

    def report(self, path: str, what: str, hint: str = "") -> None:
        self.source.problems.append(Problem(what, self.source.place(path), hint))


def _known_paths(kind: type[Section], prefix: str = "") -> list[str]:
    """The dotted paths of all sections and keys that a spec may name."""
    found = []
    for name, field in kind.model_fields.items():
        nested = subsection(field)
        found += [prefix + name, *(_known_paths(nested, f"{prefix}{name}.") if nested else [])]
    return found


def _without_blanks(kind: type[Section], data: dict[Any, Any]) -> dict[Any, Any]:
    """`data` without the keys of sections that are blank; free-form values keep their nulls."""
    kept = {}
    for name, value in data.items():
        field = kind.model_fields.get(name) if isinstance(name, str) else None
        nested = subsection(field) if field else None
        if nested is not None and isinstance(value, dict):
            kept[name] = _without_blanks(nested, value)
        elif value is not None or field is None:
            kept[name] = value
    return kept


def _first_line(error: Exception, path: str) -> str:
    return "its interpolation leads to nothing" if is_secret(path) else str(error).splitlines()[0]


def _mismatches(error: ValidationError, values: dict[str, Any], source: Source) -> list[Problem]:
    """One problem for each key whose value has the wrong type, is out of bounds or is no choice."""
    found = {}
    for detail in error.errors():
        path, field, value = _locate(detail["loc"], values)
        found[path] = Problem(f"{path}: found {describe(value, path)}, expected {expected(field)}", source.place(path))
    return list(found.values())


def _locate(location: Sequence[int | str], values: dict[str, Any]) -> tuple[str, FieldInfo, Any]:
    """The key that an error location lies in (deeper parts are list elements and union members), and its value."""
    kind: type[Section] = Spec
    found: Any = values
    for depth, name in enumerate(location, start=1):
        field, found = kind.model_fields[str(name)], found[name]
        nested = subsection(field)
        if nested is None:
            return ".".join(map(str, location[:depth])), field, found
        kind = nested
    raise AssertionError(f"{location} names no key")
