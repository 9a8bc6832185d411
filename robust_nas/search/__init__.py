"""Search strategies by name, the two loops that run them, and what scores a candidate: evaluators and proxies.

`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
