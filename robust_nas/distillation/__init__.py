"""Learned training sets: support images whose kernel regression is accurate, or robust, on the images they replace.

`DISTILLERS` knows the methods by name; `__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
