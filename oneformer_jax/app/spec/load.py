"""A spec file and overrides to a `Spec`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic.fields import FieldInfo

from oneformer_jax.app.spec import overrides as command_line
from oneformer_jax.app.spec.field import Section, expected, subsection
from oneformer_jax.app.spec.problems import Problem, raise_all
from oneformer_jax.app.spec.resolve import resolve
from oneformer_jax.app.spec.source import Source, describe, read_yaml
from oneformer_jax.app.spec.spec import Spec
from oneformer_jax.app.spec.synonyms import rename_synonyms
from oneformer_jax.app.spec.validate import disagreements


def load_spec(path: Path | None, overrides: Sequence[str] = ()) -> Spec:
    """Reads a TAO spec; without a file, overrides over the defaults.

    Blank values and `???` leave a key at its default; `require` says when one is needed. Raises
    SpecError that lists every problem: unknown and repeated keys, types, bounds, choices, contradictions.
    """
    source = read_yaml(Path(path)) if path else Source({})
    rename_synonyms(source)
    for text in overrides:
        command_line.apply(source, text)
    return load_source(source, str(path or "command line"))


def load_source(source: Source, origin: str) -> Spec:
    """The spec of what was read from `origin`. Raises SpecError that lists every problem, those of the source too."""
    rename_synonyms(source)
    values = resolve(Spec, source)
    try:
        spec = Spec.model_validate(values)
    except ValidationError as error:
        raise_all(source.problems + _mismatches(error, values, source), origin)
        raise  # a validation error that names no key would be a defect
    spec._places.update(source.places)
    raise_all(source.problems + disagreements(spec), origin)
    return spec


def _mismatches(error: ValidationError, values: dict[str, Any], source: Source) -> list[Problem]:
    """One problem for each key whose value has the wrong type, is out of bounds or is no choice."""
    found = {}
    for detail in error.errors():
        path, field, value = _locate(detail["loc"], values)
        found[path] = Problem(f"{path}: found {describe(value)}, expected {expected(field)}", source.place(path))
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
