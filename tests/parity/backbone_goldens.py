"""Reads the golden arrays of backbones alone: weights, images of several sizes, maps, outputs of modules, gradients."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from goldens import Golden, channels_last, load_golden

from converters.files.read import Source
from converters.names.original import kind_of_backbone, rules_with
from converters.rules import from_params
from converters.weights import convert
from oneformer_jax.models.backbones import BackboneConfig

Maps = dict[str, jax.Array]


@dataclass(frozen=True)
class BackboneGolden:
    """One file of golden/backbones, converted by its names alone."""

    file: Golden
    config: BackboneConfig
    params: dict[str, Any]

    @property
    def cases(self) -> int:
        return sum(name.endswith("in/image") for name in self.file.arrays)

    def image(self, case: int) -> jax.Array:
        return jnp.asarray(channels_last(self.file[f"case{case}/in/image" if case else "in/image"]))

    def expected(self, case: int, kind: str = "out") -> dict[str, np.ndarray]:
        prefix = f"case{case}/{kind}/backbone/" if case else f"{kind}/backbone/"
        found = {name: array for name, array in self.file.arrays.items() if name.startswith(prefix)}
        return {name.removeprefix(prefix): channels_last(array) for name, array in found.items()}

    @property
    def modules(self) -> dict[str, np.ndarray]:
        """Outputs of modules for the first image, by the names of the original."""
        prefix = "dbg/backbone/"
        return {n.removeprefix(prefix): x for n, x in self.file.arrays.items() if n.startswith(prefix)}

    def maps(self, params: dict[str, Any], images: jax.Array) -> Maps:
        return self.config.build().apply({"params": params}, images, deterministic=True)

    def maps_and_calls(self, params: dict[str, Any], images: jax.Array) -> tuple[Maps, Any]:
        """The maps, and what every module returned."""
        maps, state = self.config.build().apply(
            {"params": params}, images, deterministic=True, capture_intermediates=True, mutable="intermediates"
        )
        return maps, state["intermediates"]

    def scalar(self, params: dict[str, Any]) -> jax.Array:
        """The one that the recorded gradients are of."""
        return sum((self._mean(x) for x in self.maps(params, self.image(0)).values()), jnp.zeros(()))

    def _mean(self, x: jax.Array) -> jax.Array:
        batch, height, width, channels = x.shape
        coefficients = (((7 * np.arange(x.size)) % 23) - 11) / 11
        of_map = coefficients.reshape(batch, channels, height, width).transpose(0, 2, 3, 1).astype(np.float32)
        return jnp.mean(x * of_map)

    def in_their_names(self, params: dict[str, Any]) -> dict[str, np.ndarray]:
        return from_params({"backbone": params}, rules_with(kind_of_backbone(self.file.state)))


def attention_of(file: Golden) -> dict[str, str]:
    """What the file says of an attention that weights do not tell."""
    return {"attention": "shifted"} if file.meta.get("dialect", "").startswith("B:") else {}


def load_backbone(shared: Path, name: str) -> BackboneGolden:
    file = load_golden(shared / f"reference/golden/backbones/{name}_dev.npz")
    converted = convert(Source("golden", file.state, None), backbone=file.meta["config"] | attention_of(file))
    assert isinstance(converted.config, BackboneConfig)
    assert converted.report.complaints() == []
    return BackboneGolden(file, converted.config, converted.params["backbone"])
