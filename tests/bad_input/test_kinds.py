"""Words that may grow, as where a search is registered, are those of the moment."""

from __future__ import annotations

import pytest

from nextpert._adata.arguments import checked, one_of


def test_words_are_those_there_are_now():
    words = ["boss", "gsp"]

    @checked(method=one_of(lambda: words))
    def learn(*, method: str = "gsp") -> str:
        return method

    with pytest.raises(ValueError, match="method must be 'boss' or 'gsp', but is 'chain'"):
        learn(method="chain")
    words.append("chain")
    assert learn(method="chain") == "chain"
    with pytest.raises(ValueError, match="method must be 'boss', 'gsp' or 'chain', but is 'pc'"):
        learn(method="pc")
