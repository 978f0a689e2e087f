"""Predictions of one image, and what every pixel has of them: PyTorch resizes, crops and resizes, in float64."""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import strategies as st

from oneformer_jax.data.geometry import Geometry, letterbox, short_edge
from oneformer_jax.postprocess.tiles import softmax

GEOMETRIES = (
    Geometry((192, 200), (192, 200), (192, 224)),
    short_edge((150, 131), 96, 160),
    letterbox((50, 330), (96, 96)),
    Geometry((65, 64), (64, 96), (64, 96)),
    Geometry((1, 130), (7, 64), (32, 64)),
)


class Case(NamedTuple):
    probabilities: np.ndarray  # (q, k)
    mask_logits: np.ndarray  # (q, h, w)
    geometry: Geometry
    full: np.ndarray  # logits of all pixels, float64 (q, height, width)

    @property
    def near_zero(self) -> np.ndarray:
        """Where float32 may give a logit the other sign."""
        return abs(self.full) <= 1e-5 * abs(self.mask_logits).max()


@st.composite
def cases(draw, geometries=GEOMETRIES, queries=(1, 24), classes=(1, 40)) -> Case:
    """From smooth masks of sharp borders to noise, from a few queries that matter to all; with equals of some."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    geometry = draw(st.sampled_from(geometries))
    queries, classes = (draw(st.integers(*bounds)) for bounds in (queries, classes))
    height, width = (-(-edge // 4) for edge in geometry.padded)
    cells = draw(st.sampled_from([2, 5, 1000]))
    noise = rng.normal(size=(1, queries, min(cells, height), min(cells, width)))
    masks = F.interpolate(torch.from_numpy(noise), size=(height, width), mode="bilinear")[0].numpy()
    masks = masks * draw(st.sampled_from([0.0, 0.3, 6.0, 60.0, 1e4])) + draw(st.sampled_from([0.0, -8.0, 40.0]))
    logits = rng.normal(size=(queries, classes + 1)) * draw(st.sampled_from([0.0, 1.0, 5.0]))
    logits[rng.random(queries) < draw(st.sampled_from([0.0, 0.5, 0.9])), -1] += 9
    probabilities, masks = softmax(logits.astype(np.float32))[:, :-1], masks.astype(np.float32)
    if draw(st.booleans()):  # equals: ties, and what float32 cannot tell apart
        probabilities[:, classes // 2], probabilities[-1], masks[-1] = probabilities[:, 0], probabilities[0], masks[0]
        larger = rng.random(probabilities.shape) < draw(st.sampled_from([0.0, 0.1, 0.5]))
        probabilities = np.where(larger, np.nextafter(probabilities, np.float32(2)), probabilities)
    padded = F.interpolate(torch.from_numpy(masks).double()[None], size=geometry.padded, mode="bilinear")
    cropped = padded[:, :, : geometry.resized[0], : geometry.resized[1]]
    full = F.interpolate(cropped, size=geometry.original, mode="bilinear")[0].numpy()
    return Case(probabilities, masks, geometry, full)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return torch.from_numpy(x).sigmoid().numpy()


def first_of_the_largest(scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along the first axis, and where it is open whether another one is a tie, or float64 has no digits left."""
    best = scores.max(axis=0)
    missing = 1 - scores / np.maximum(best, np.finfo(float).tiny)
    unclear = ((missing > 5e-13) & (missing < 2e-12)).any(axis=0) | (best < 1e-290)
    return (missing < 1e-12).argmax(axis=0), unclear
