"""Kernels of images, and regression with them, in float64; `KERNELS` knows the kernels by name.

`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
