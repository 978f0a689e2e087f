"""Logits to probabilities, in NumPy and float32."""

import numpy as np
from jaxtyping import Float


def softmax(logits: Float[np.ndarray, "*batch k"]) -> Float[np.ndarray, "*batch k"]:
    """Softmax over the last axis."""
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def sigmoid(logits: Float[np.ndarray, "*shape"]) -> Float[np.ndarray, "*shape"]:
    """1 / (1 + exp(-x)) without overflow; large tiles are the hot path, so every step works in place."""
    result = np.negative(logits)
    np.minimum(result, 80.0, out=result)  # exp(80) is finite in float32, and 1 / exp(80) is 0 for any purpose
    np.exp(result, out=result)
    result += 1.0
    return np.reciprocal(result, out=result)
