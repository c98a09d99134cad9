"""Pipelines whose models are ONNX graphs: export, and inference with onnxruntime."""
