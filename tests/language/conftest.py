"""What all tests of the language laboratory share."""

import pytest

from policyopt.training import single_thread


@pytest.fixture(autouse=True)
def one_thread():
    """Models this small are fastest on one thread, above all where tests run side by side."""
    with single_thread():
        yield
