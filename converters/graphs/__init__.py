"""ONNX graphs to ONNX graphs: other number formats, quantized weights and activations. Needs onnx, no JAX."""
