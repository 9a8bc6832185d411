"""Every plot and cell drawing, from plain values; each is written as PNG and SVG, and its numbers as CSV.

`FIGURES` knows the figures by name; `__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
