"""Training: one loop for every loss, step and hook; weight averaging, schedules, and when to give up.

`LOSSES`, `HOOKS`, `STEPS` and `SCHEDULES` know their methods by name; recipes are read without torch.
`__init__.pyi` lists the public names.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
