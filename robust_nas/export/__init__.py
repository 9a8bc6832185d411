"""A trained network in forms that run elsewhere: plain source, ONNX, torch.export."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
