"""The model as an ONNX file: the only place that imports jax2onnx (extra `export`)."""
