"""The check that all tables of bad input share."""

import warnings

import matplotlib.pyplot as plt
import pytest

from nextpert.core import CycleError

_EXPECTED = (ValueError, TypeError, FileNotFoundError)


@pytest.fixture
def assert_refused(assert_same_adata):
    """Call with bad input: one clear sentence that holds the words, and nothing changed."""

    def check(call, adata, words=(), error=_EXPECTED, one_of=()):
        before = None if adata is None else adata.copy()
        figures = plt.get_fignums()
        with warnings.catch_warnings(action="ignore"), pytest.raises(error) as caught:
            call(adata)
        # LinAlgError and the like are ValueErrors, too, and say nothing to a user.
        assert type(caught.value) in {*_EXPECTED, CycleError}
        message = str(caught.value)
        missing = [word for word in words if word not in message]
        assert not missing, f"{missing} not in {message!r}"
        assert not one_of or any(word in message for word in one_of), message
        assert len(message) >= 25, message
        assert message[-1] in ".)", message
        if adata is not None:
            assert_same_adata(adata, before)
        assert plt.get_fignums() == figures

    return check
