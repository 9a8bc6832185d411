"""Inputs that fool a model: one file an attack. `ATTACKS` knows them by name; each is its options, and is called.

`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
