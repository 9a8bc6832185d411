"""What the tests of workflows share: their jobs leave out what takes seconds.

Latencies are measured for an instant and without the exports.
"""

import pytest

from robust_nas.export import latency


@pytest.fixture(autouse=True, scope="module")
def _short_jobs():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "SECONDS", 0.001)
        patched.setattr(latency, "PACKAGES", ("none_such",))
        yield
