"""What every backbone is to the model, and how the JSON of a checkpoint finds its class.

    @dataclass(frozen=True)
    class MyConfig(BackboneConfig):
        width: int = 64

        def build(self) -> nn.Module:
            return MyBackbone(self)

    register_backbone("my", MyConfig)

A checkpoint stores the fields and the kind: `{"kind": "my", "width": 64}`. A program that reads it imports the module
that registers the kind first.
"""

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn

from oneformer_jax.errors import CheckpointError
from oneformer_jax.stored import stored_fields

UNNAMED = "swin"
"""The kind of a backbone whose JSON names none: checkpoints of 0.1 know no other."""


class BackboneConfig(ABC):
    """A frozen dataclass of plain values that holds every architectural choice of a backbone."""

    @abstractmethod
    def build(self) -> nn.Module:
        """A module that maps normalised images (B, H, W, 3) to `{"res2": (B, H/4, W/4, C2), ..., "res5": (B, H/32,
        W/32, C5)}` when called as `module(images, deterministic=...)`. `res2` may be missing."""

    @property
    def finest_stride(self) -> int:
        """Pixels of an image to one of its largest map, and of the masks that are predicted."""
        return 4

    def for_inference(self) -> "BackboneConfig":
        """Without what only training needs, such as recomputation."""
        return self

    @property
    def in_depth(self) -> tuple[tuple[str, ...], ...]:
        """What is frozen first: the starts of the paths of the first layers' parameters, then those of each stage with
        what leads out of it. () where no order is known."""
        return ()

    def with_frozen(self, is_frozen: Callable[[str], bool]) -> "BackboneConfig":
        """With those parts in evaluation mode, also while the model trains, all of whose parameters are frozen:
        `is_frozen` says so of the start of a parameter's path, such as `stage0_`."""
        return self

    def adapted_to(self, other: "BackboneConfig") -> "BackboneConfig":
        """With the choices of `other` that pretrained parameters can be adapted to, such as a window size."""
        return self


_kinds: dict[str, type[BackboneConfig]] = {}


def register_backbone(kind: str, config: type[BackboneConfig]) -> None:
    """Makes checkpoints with a backbone of class `config` readable. Raises ValueError where another has the name."""
    if _kinds.setdefault(kind, config) is not config:
        raise ValueError(f"the kind {kind!r} of backbones is registered for {_kinds[kind].__qualname__}")


def backbone_to_json(config: BackboneConfig) -> dict[str, Any]:
    """The kind and the fields. Raises CheckpointError where its class is not registered."""
    kind = next((kind for kind, registered in _kinds.items() if registered is type(config)), None)
    if kind is None:
        name = type(config).__qualname__
        raise CheckpointError(
            f"the backbone {name} is not registered, so a checkpoint with it could not be read back",
            hint=f'call register_backbone("a name", {name}) in the module that defines it',
        )
    assert dataclasses.is_dataclass(config)
    return {"kind": kind} | dataclasses.asdict(config)


def backbone_from_json(data: Mapping[str, Any], *, where: str = "") -> BackboneConfig:
    """The inverse of `backbone_to_json`. Raises CheckpointError: a kind that is not registered; as `known_fields`."""
    kind, fields = data.get("kind", UNNAMED), {name: value for name, value in data.items() if name != "kind"}
    if kind not in _kinds:
        raise CheckpointError(
            f"the model has a backbone of the kind {kind!r}; registered are {', '.join(sorted(_kinds))}",
            where=where,
            hint=f'import the module that calls register_backbone("{kind}", ...) before the checkpoint is read',
        )
    found = known_fields(_kinds[kind], fields, where=place(where, "backbone"))
    return _kinds[kind](**{name: tuples(value) for name, value in found.items()})


def place(where: str, part: str) -> str:
    """A part of what is stored `where`, for messages."""
    return f"{where}: {part}" if where else part


def known_fields(cls: type, data: Any, *, where: str) -> dict[str, Any]:
    """The fields of a part of an architecture, as JSON has them; some may be missing.

    Raises CheckpointError: a field that the class lacks, or of another type.
    """
    names = [field.name for field in dataclasses.fields(cls)]
    found, others = stored_fields(cls, data, where=where, optional=names, error=CheckpointError)
    if others:
        hint = "a newer version of this program wrote it: use that"
        raise CheckpointError(f"{', '.join(others)}: unknown to this version", where=where, hint=hint)
    return found


def tuples(value: Any) -> Any:
    """Lists as tuples, those inside too: fields of a configuration can be hashed."""
    return tuple(map(tuples, value)) if isinstance(value, list | tuple) else value
