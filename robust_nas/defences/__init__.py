"""What stands around a network: one file a defence. `DEFENCES` knows them by name; each is its options, and wraps.

`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
