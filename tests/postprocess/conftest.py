"""The published post-processing written down directly in PyTorch: everything at full size, one query after another."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from oneformer_jax.data.geometry import Geometry


@pytest.fixture(scope="session")
def full_size_logits() -> Callable[[np.ndarray, Geometry], np.ndarray]:
    """Resize to the padded size, crop, resize to the original size."""

    def resize(mask_logits: np.ndarray, geometry: Geometry) -> np.ndarray:
        height, width = geometry.resized
        padded = F.interpolate(
            torch.from_numpy(mask_logits)[None], size=geometry.padded, mode="bilinear", align_corners=False
        )
        cropped = padded[:, :, :height, :width]
        return F.interpolate(cropped, size=geometry.original, mode="bilinear", align_corners=False)[0].numpy()

    return resize


@pytest.fixture(scope="session")
def golden(shared: Path) -> SimpleNamespace:
    """Logits and the original's results for one image: 90x120, padded to 96x128, wanted at 100x140."""
    arrays = np.load(shared / "reference/golden/shi_tiny_dev.npz")
    values = {name.removeprefix("e2e/"): arrays[name] for name in arrays.files if name.startswith("e2e/")}
    return SimpleNamespace(
        **values,
        class_logits=values["pred_logits"][0],
        mask_logits=values["pred_masks"][0],
        geometry=Geometry((100, 140), (90, 120), (96, 128)),
        is_thing=np.arange(7) < 4,
        meta=str(arrays["meta_json"]),
    )
