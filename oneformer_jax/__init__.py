"""OneFormer as pure JAX functions, driven by TAO spec files."""

import os
from importlib import import_module
from typing import Any

from oneformer_jax.errors import needs

__version__ = "0.2.0"

# ONNX Runtime reports to its maker what runs it; this keeps it from that, and is read when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Public name -> module; resolved on first use, so that the parts that need no JAX import without it.
_PUBLIC = {
    "enable_compilation_cache": "oneformer_jax.models.compiled_programs",
    "from_pretrained": "oneformer_jax.predict.pretrained",
    "load_checkpoint": "oneformer_jax.checkpoints.read",
    "load_model": "oneformer_jax.predict.predictor",
    "load_spec": "oneformer_jax.app.spec",
    "OneFormerConfig": "oneformer_jax.models.config",
    "OneFormerError": "oneformer_jax.errors",
    "Predictions": "oneformer_jax.models.predictions",
}

__all__ = sorted(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    with needs("train"):
        return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return __all__
