"""Exported models at work: ONNX files and engines as backends of the evaluator. Nothing here needs JAX.

model = open_model("model.onnx")
result = model.predict(picture, "panoptic")
"""

from oneformer_jax.predict.exported_model import EngineModel, open_model

__all__ = ["EngineModel", "open_model"]
