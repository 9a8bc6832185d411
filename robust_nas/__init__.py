"""Search for neural architectures that stay accurate under adversarial attack.

Public names, listed in `__init__.pyi`, are imported on first use, so that a config is checked before torch is imported.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
