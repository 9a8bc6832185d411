"""What every test shares: one hypothesis profile without deadlines, for machines of any speed; and a world without NNI.

With ROBUST_NAS_HIDE_NNI=1 the tests run as if NNI and Lightning were not installed (`scripts/test.sh` does both).
"""

import os
import sys
from importlib.abc import MetaPathFinder

from hypothesis import settings

settings.register_profile("robust_nas", deadline=None, max_examples=60, derandomize=True)
settings.load_profile("robust_nas")

HIDDEN = {"nni", "pytorch_lightning", "lightning_fabric", "torchmetrics"}


class _Hide(MetaPathFinder):
    """Says of the extra's packages that they are not there."""

    def find_spec(self, fullname, path=None, target=None):
        if fullname.partition(".")[0] in HIDDEN:
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


if os.environ.get("ROBUST_NAS_HIDE_NNI") == "1":
    sys.meta_path.insert(0, _Hide())
