"""Smaller and faster networks from a trained one: one file a compressor. `COMPRESSORS` knows them by name.

`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
