"""Runs models in ONNX format without PyTorch: one engine for all encoders that have such a model."""
