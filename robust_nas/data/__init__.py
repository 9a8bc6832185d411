"""Images in: one reader a dataset, splits, augmentation on the device. `__init__.pyi` lists the public names.

No file here may bear the name of a public function: importing it would put the module in its place.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
