"""ONNX in, a module of torch's own layers out, which then goes the way of every module."""

from celosia.frontend.onnx.network import load_onnx

__all__ = ["load_onnx"]
