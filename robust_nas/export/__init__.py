"""A trained network in forms that run elsewhere: plain source, ONNX, torch.export."""

from robust_nas.export.source import export_source

__all__ = ["export_source"]
