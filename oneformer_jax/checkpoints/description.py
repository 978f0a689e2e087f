"""The description of a checkpoint: all that it holds besides arrays, as JSON, whichever version wrote it."""

import dataclasses
import logging
from collections.abc import Callable, Container, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from oneformer_jax.checkpoints.contents import quantized_shapes
from oneformer_jax.data.datasets.categories import Categories
from oneformer_jax.data.geometry import EvaluationPolicy, Policy, policy_from_json
from oneformer_jax.errors import CheckpointError, DataError
from oneformer_jax.models import oneformer
from oneformer_jax.models.config import OneFormerConfig
from oneformer_jax.models.oneformer import Params
from oneformer_jax.postprocess.results import Thresholds
from oneformer_jax.stored import LARGEST, TINIEST

logger = logging.getLogger(__name__)
LONGEST_FRACTION = 1000  # letters


@dataclass(frozen=True)
class Training:
    """What a checkpoint was trained with, and how far.

    `images` were seen: the next one is that global sample index. `epochs` went by, by the length that they had.
    `images_per_step` counts those of an update, on all devices. `schedule` is that of the learning rate, as plain data,
    with the `epochs` that were planned.
    """

    dataset_size: int
    images_per_step: int
    monitor: str
    seed: int
    schedule: dict[str, Any]
    images: int = 0
    epochs: Fraction = Fraction(0)

    def to_json(self) -> dict[str, Any]:
        return vars(self) | {"epochs": str(self.epochs)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Training":
        """The inverse of `to_json`, without the fields that a newer version added. Raises KeyError, TypeError,
        ValueError."""
        known = {field.name: data[field.name] for field in dataclasses.fields(cls)}
        whole = {name: _whole(known[name]) for name in ("dataset_size", "images_per_step", "seed", "images")}
        if not whole["images_per_step"]:
            raise ValueError("expected at least one image a step")
        if not isinstance(known["monitor"], str):
            raise TypeError(f"expected the name of a score, not {str(known['monitor'])[:60]}")
        parts = {"epochs": _epochs(known["epochs"]), "schedule": _mapping(known["schedule"])}
        return cls(**known | whole | parts)


@dataclass(frozen=True)
class Description:
    """Everything besides arrays that a checkpoint holds: nothing of the training spec must be repeated to use it.

    `absent` names the top-level parts of the model that it lacks: those for training alone, where its source had none,
    or all but the backbone. `quantized` names the layers whose kernels are stored in 8 bits, with the format. `policy`
    and `thresholds` are those of the evaluation; checkpoints of before 0.2 hold none and get the defaults. `training`:
    None where it was converted, or trained by 0.2. `unknown` are fields of a newer version, which are kept, those of
    `thresholds` and `training` under these names.
    """

    model: OneFormerConfig
    categories: Categories
    pixel_mean: tuple[float, float, float]
    pixel_std: tuple[float, float, float]
    spec: dict[str, Any]
    step: int = 0
    epoch: int = 0
    metrics: dict[str, float] = dataclasses.field(default_factory=dict)
    absent: tuple[str, ...] = ()
    quantized: dict[str, str] = dataclasses.field(default_factory=dict)
    policy: Policy = dataclasses.field(default_factory=EvaluationPolicy)
    thresholds: Thresholds = dataclasses.field(default_factory=Thresholds)
    training: Training | None = None
    unknown: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        known = {name: value for name, value in vars(self).items() if name != "unknown"}
        stored = known | {
            "model": self.model.to_json(),
            "categories": self.categories.to_json(),
            "policy": vars(self.policy),
            "thresholds": vars(self.thresholds),
            "training": self.training and self.training.to_json(),
        }
        inner = {name: self.unknown[name] | stored[name] for name in _INNER if name in self.unknown and stored[name]}
        return self.unknown | stored | inner

    @classmethod
    def from_json(cls, data: Any, *, where: str = "") -> "Description":
        """The inverse of `to_json`; `where` names the checkpoint. Fields of a newer version are logged.

        Raises CheckpointError: an unknown backbone, a field that is missing or of another type.
        """
        if not isinstance(data, dict):
            raise CheckpointError(f"its description is not a JSON object but {str(data)[:60]}", where=where, hint=HINT)
        if missing := [name for name in REQUIRED if name not in data]:
            raise CheckpointError(f"its description lacks {', '.join(missing)}", where=where, hint=HINT)
        values = {}
        for name, read in _READERS.items():
            if name in data:
                values[name] = _read(name, data[name], read, where)
        unknown = _beyond(data, _READERS)
        names = list(unknown)
        for name, kind in _INNER.items():
            known = {field.name for field in dataclasses.fields(kind)}
            if inner := _beyond(data.get(name) or {}, known):
                unknown[name] = inner
                names += [f"{name}.{field}" for field in inner]
        if names:
            logger.warning("%s: written by a newer version: %s not used here", where, ", ".join(sorted(names)))
        return cls(**values, unknown=unknown)

    def shapes(self, where: str = "") -> Params:
        """Shapes and dtypes of the arrays that the checkpoint holds: those of the parts that are not `absent`.

        Raises CheckpointError, which names the checkpoint `where`: there is no such model.
        """
        try:
            found = oneformer.shapes(self.model)
        except Exception as error:  # whatever numbers that contradict each other lead to
            reason = f"{type(error).__name__}: {(str(error) or '-').splitlines()[0][:200]}"
            what = f"`model` in its description cannot be built: {reason}"
            raise CheckpointError(what, where=where, hint=HINT) from error
        held = {part: shape for part, shape in found.items() if part not in self.absent}
        return quantized_shapes(held, self.quantized)


_MOST_LAYERS, _LARGEST = 1000, 1_000_000
"""What no model has more of, in a stage, or of anything."""
HINT = "the checkpoint is damaged, or was written by another program: use another step of the same run"


def _read(name: str, value: Any, read: Callable[[Any], Any], where: str) -> Any:
    try:
        return read(value)
    except CheckpointError as error:
        what = f"`{name}` in its description cannot be used: {error.what}"
        raise CheckpointError(what, where=where, hint=error.hint) from error
    except (DataError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        reason = error.what if isinstance(error, DataError) else f"{type(error).__name__}: {error}"
        raise CheckpointError(
            f"`{name}` in its description cannot be used: {reason[:200]}",
            where=where,
            hint=f"{HINT}; what a newer version wrote there needs that version",
        ) from error


def _beyond(data: Mapping[str, Any], known: Container[str]) -> dict[str, Any]:
    return {name: value for name, value in data.items() if name not in known}


def _whole(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise TypeError(f"expected a whole number, not {str(value)[:60]}")
    return value


def _epochs(value: Any) -> Fraction:
    text = str(value)
    epochs = Fraction(text) if len(text) <= LONGEST_FRACTION and "e" not in text.lower() else Fraction(-1)
    if epochs < 0:
        raise ValueError(f"expected how many epochs went by, as a fraction, not {text[:60]}")
    return epochs


def _three(values: Any) -> tuple[float, float, float]:
    first, second, third = map(float, values)
    if not all(abs(value) <= LARGEST for value in (first, second, third)):
        raise ValueError(f"expected three numbers that float32 holds, not {str(values)[:60]}")
    return first, second, third


def _three_above_zero(values: Any) -> tuple[float, float, float]:
    """Images are divided by them, in float32."""
    three = _three(values)
    if min(three) < TINIEST:
        raise ValueError(f"expected three numbers above 0, not {str(values)[:60]}")
    return three


def _mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"expected an object, not {str(value)[:60]}")
    return value


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(isinstance(value, str) for value in values):
        raise TypeError(f"expected a list of texts, not {str(values)[:60]}")
    return tuple(values)


def _model(value: Any) -> OneFormerConfig:
    """Numbers beyond those of any model are damage: to build it would take all time or memory."""
    for name, number in _numbers("", _mapping(value)):
        largest = _MOST_LAYERS if name == "depths" or name.endswith("layers") else _LARGEST
        if not 0 <= number <= largest:
            raise ValueError(f"{name} holds {number}, expected 0 to {largest}")
    return OneFormerConfig.from_json(value)


def _numbers(name: str, value: Any) -> Iterator[tuple[str, int]]:
    """All whole numbers, by the names that they stand under."""
    if type(value) is int:
        yield name, value
    elif isinstance(value, list):
        for element in value:
            yield from _numbers(name, element)
    elif isinstance(value, dict):
        for inner, element in value.items():
            yield from _numbers(inner, element)


def _thresholds(value: Any) -> Thresholds:
    known = {field.name for field in dataclasses.fields(Thresholds)}
    fields = {name: float(number) for name, number in _mapping(value).items() if name in known}
    if fields.get("test_topk_per_image", 0.0).is_integer():
        fields |= {"test_topk_per_image": int(fields["test_topk_per_image"])} if "test_topk_per_image" in fields else {}
    return Thresholds(**fields)  # type: ignore[arg-type]


_READERS: dict[str, Callable[[Any], Any]] = {
    "model": _model,
    "categories": Categories.from_json,
    "pixel_mean": _three,
    "pixel_std": _three_above_zero,
    "spec": _mapping,
    "step": _whole,
    "epoch": _whole,
    "metrics": lambda value: {name: float(number) for name, number in _mapping(value).items()},
    "absent": _texts,
    "quantized": lambda value: {name: str(dtype) for name, dtype in _mapping(value).items()},
    "policy": policy_from_json,
    "thresholds": _thresholds,
    "training": lambda value: None if value is None else Training.from_json(_mapping(value)),
}
_INNER = {"thresholds": Thresholds, "training": Training}
REQUIRED = ("model", "categories", "pixel_mean", "pixel_std", "spec")
