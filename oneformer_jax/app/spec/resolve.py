"""The keys of a source that have a value: unknown ones reported, `${...}` resolved, blank and missing ones left out."""

from typing import Any

from omegaconf import Container, DictConfig, OmegaConf
from omegaconf.errors import InterpolationToMissingValueError, OmegaConfBaseException

from oneformer_jax.app.spec.field import Section, plain, subsection
from oneformer_jax.app.spec.problems import Problem, nearest
from oneformer_jax.app.spec.source import Source, describe
from oneformer_jax.app.spec.synonyms import SYNONYMS, reason_not_available


def resolve(root: type[Section], source: Source) -> dict[Any, Any]:
    """Nested values by key. Interpolations see the spec over its defaults, and the environment (`${oc.env:NAME}`)."""
    return _Resolver(root, source).read()


def known_paths(kind: type[Section], prefix: str = "") -> list[str]:
    """The dotted paths of all sections and keys that a spec may name."""
    found = []
    for name, field in kind.model_fields.items():
        nested = subsection(field)
        found += [prefix + name, *(known_paths(nested, f"{prefix}{name}.") if nested else [])]
    return found


class _Resolver:
    def __init__(self, root: type[Section], source: Source) -> None:
        self.root, self.source = root, source
        self.known = [*known_paths(root), *SYNONYMS]

    def read(self) -> dict[Any, Any]:
        given = _without_blanks(self.root, self.source.data)
        try:
            config = OmegaConf.create(_over(plain(self.root()), given))
            return self.section(self.root, given, config, "")
        except OmegaConfBaseException as error:
            path = error.full_key or ""
            self.report(path, f"{path or 'the spec'}: {_first_line(error)}")
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
                    f"{path}: found {describe(value)}, expected a section",
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
            self.report(path, f"{path}: {_first_line(error)}")
            return None

    def unknown(self, path: str) -> None:
        reason = reason_not_available(path)
        near = "" if reason else nearest(path, self.known)
        self.report(path, f"{path}: {reason or 'unknown key'}", f"did you mean {near}?" if near else "")

    def report(self, path: str, what: str, hint: str = "") -> None:
        self.source.problems.append(Problem(what, self.source.place(path), hint))


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


def _over(defaults: dict[Any, Any], given: dict[Any, Any]) -> dict[Any, Any]:
    """`given` over `defaults`, section by section. (OmegaConf's own merge would lose `???`.)"""
    both = {
        name: _over(defaults[name], value)
        if isinstance(value, dict) and isinstance(defaults.get(name), dict)
        else value
        for name, value in given.items()
    }
    return defaults | both


def _first_line(error: Exception) -> str:
    return str(error).splitlines()[0]
