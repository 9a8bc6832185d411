"""What the tests of compressors share: their jobs render no figures."""

import pytest


@pytest.fixture(autouse=True, scope="module")
def _unrendered(unrendered):
    pass
