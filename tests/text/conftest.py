"""What every sentence of the front end promises."""

from collections.abc import Callable

import pytest

from melstate.tts.text import Sentence, symbols


@pytest.fixture(scope="session")
def check() -> Callable[[Sentence], None]:
    """Edges, indices in order, every word spoken, no two marks together."""

    def check_sentence(sentence: Sentence) -> None:
        named = symbols.to_symbols(sentence.ids)
        assert named[0] == symbols.BEGIN and named[-1] == symbols.END and len(sentence.ids) == len(sentence.word_of)
        assert not {symbols.PAD, symbols.BEGIN, symbols.END} & set(named[1:-1])
        owners = [owner for owner in sentence.word_of if owner >= 0]
        assert owners == sorted(owners) and set(owners) == set(range(len(sentence.words)))
        assert named[1] in symbols.PHONES and named[-2] in symbols.PUNCTUATION
        for before, after, owner in zip(named, named[1:], sentence.word_of, strict=False):
            assert not (before in symbols.PUNCTUATION and after in symbols.PUNCTUATION)
            assert (before in symbols.PHONES) == (owner >= 0)

    return check_sentence
