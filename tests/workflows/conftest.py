"""What the tests of workflows share: latencies are measured for an instant, without the exports, which take seconds."""

import pytest

from robust_nas.export import latency


@pytest.fixture(autouse=True, scope="module")
def _short_latencies():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(latency, "SECONDS", 0.001)
        patched.setattr(latency, "PACKAGES", ("none_such",))
        yield
