"""The tree of sections and keys: each key where it is, with what TAO publishes of it."""

import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pydantic.fields import FieldInfo

from oneformer_jax.app.spec.field import Key, Section, is_key, key_of, members, plain, subsection, tao_type


@dataclass(frozen=True)
class Leaf:
    """One key of the tree: its dotted path, its pydantic field and its facts."""

    path: str
    field: FieldInfo
    key: Key

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def extension(self) -> bool:
        """Whether the key is one that TAO has not."""
        return self.key.extension

    @property
    def type(self) -> str:
        """TAO's name of the type: int, float, bool, string, categorical, list or collection."""
        return tao_type(self.field.annotation)

    @property
    def is_wider(self) -> bool:
        """Whether the key takes other types than the published one."""
        return len(members(self.field.annotation)) > 1

    @property
    def default(self) -> Any:
        """The default as plain YAML data (lists and dictionaries)."""
        return plain(self.field.get_default(call_default_factory=True))

    @property
    def published_default(self) -> Any:
        """The default in TAO's schema; None: the schema has none."""
        return self.default if self.key.published is None else self.key.published

    @property
    def template_default(self) -> Any:
        """The default in TAO's templates; None: they leave the key out."""
        return self.published_default if self.key.template is None else self.key.template

    @property
    def pattern(self) -> str:
        """The regular expression that the text matches, "" where there is none."""
        return next((rule.pattern for rule in self.field.metadata if getattr(rule, "pattern", None)), "")

    @property
    def enum(self) -> tuple[str, ...]:
        """The published values of a choice."""
        return self.key.enum or (typing.get_args(self.field.annotation) if self.type == "categorical" else ())

    @property
    def automl(self) -> bool | None:
        """Whether the published schema offers the key to a search (None: it does not say). Lists never are."""
        return False if self.type in ("list", "collection") else self.key.automl


@dataclass(frozen=True)
class Branch:
    """One section of the tree: its dotted path, its pydantic field and its class."""

    path: str
    field: FieldInfo
    kind: type[Section]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]

    @property
    def extension(self) -> bool:
        """Whether TAO has none of its keys."""
        return all(leaf.extension for leaf in self.leaves())

    def children(self) -> "Iterator[Leaf | Branch]":
        """The keys and sections right below."""
        return children(self.kind, f"{self.path}.")

    def leaves(self) -> Iterator[Leaf]:
        """All keys below."""
        return leaves(self.kind, f"{self.path}.")


def children(kind: type[Section], prefix: str = "") -> Iterator[Leaf | Branch]:
    """The keys and sections right below a section, in the order of declaration."""
    for name, field in kind.model_fields.items():
        nested = subsection(field)
        if is_key(field):
            yield Leaf(prefix + name, field, key_of(field))
        elif nested is not None:
            yield Branch(prefix + name, field, nested)


def leaves(kind: type[Section], prefix: str = "") -> Iterator[Leaf]:
    """All keys below a section, in the order of declaration."""
    for child in children(kind, prefix):
        if isinstance(child, Leaf):
            yield child
        else:
            yield from child.leaves()
