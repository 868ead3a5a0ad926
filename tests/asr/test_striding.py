"""Striding over a toy decoder that reads token ids written in the memory: every token once, wherever windows end."""

import pytest
import torch

from melstate.asr.striding import Striding, Written, repeats
from melstate.asr.tokens import END, FIRST_PIECE, SPEAKERS, Tokens

TOKENS = Tokens()


class Reader:
    """Writes the ids it finds in the memory's first channel, in order; then END END. `blind` makes it stall there."""

    memory_dim = 2

    def __init__(self, blind=()):
        self.blind = set(blind)

    def window(self, memory):
        self.memory = memory
        return type("Window", (), {"keys": memory})()

    def __call__(self, tokens, window, state):
        heard = [*(state or []), *tokens[0].tolist()]
        column = window.keys[0, :, 0].long().tolist()
        places = [i for i, token in enumerate(column) if token]
        count = sum(t >= FIRST_PIECE for t in heard)
        logits = torch.zeros(1, 1, len(TOKENS))
        if count < len(places):
            token, place = column[places[count]], places[count]
        else:
            token, place = END, len(column) - 1
        stuck = [p for p in places if int(window.keys[0, p, 1]) in self.blind and p <= place]
        if stuck:
            token, place = FIRST_PIECE + 5, stuck[0]
        logits[0, 0, token] = 10.0
        return logits, torch.tensor([[place / len(column)]]), heard


def memory_of(tokens, every=5, frames=None):
    memory = torch.zeros(1, frames or every * len(tokens) + every, 2)
    for number, token in enumerate(tokens):
        memory[0, every * (number + 1) - 1] = torch.tensor([float(token), number + 1.0])
    return memory


def run(striding, memory, cuts=(), voiced=None):
    voiced = torch.ones(memory.shape[1]) if voiced is None else voiced
    state, written, sizes = striding.init_state(memory), [], []
    edges = [0, *cuts, memory.shape[1]]
    for begin, end in zip(edges, edges[1:], strict=False):
        found, state = striding.advance(state, memory[:, begin:end], voiced[begin:end], final=end == memory.shape[1])
        written += found
        sizes.append(state.memory.shape[1])
    return written, sizes


def ids(text):
    return TOKENS.encode(text)


@pytest.mark.parametrize("window", [80, 130, 400])
def test_every_token_is_written_once_and_in_place(window):
    tokens = ids(" ".join("a fox did jump over dogs so lazy they slept".split() * 4))
    memory = memory_of(tokens)
    written, _ = run(Striding(Reader(), TOKENS, window=window), memory)
    said = [w for w in written if w.token >= FIRST_PIECE]
    assert [w.token for w in said] == tokens
    assert [w.frame for w in said] == [5 * (n + 1) - 1 for n in range(len(tokens))]


def test_any_split_of_the_memory_writes_the_same_and_keeps_little():
    memory = memory_of(ids("one two three " * 12))
    striding = Striding(Reader(), TOKENS, window=80)
    whole, _ = run(striding, memory)
    pieces, sizes = run(striding, memory, cuts=range(7, memory.shape[1] - 1, 7))
    assert pieces == whole
    assert max(sizes) <= 100 + 7


def test_a_stall_takes_back_what_it_wrote_and_goes_on():
    tokens = ids("ab " * 30)
    memory = memory_of(tokens)
    reader = Reader(blind={40})  # stuck at the fortieth token
    written, _ = run(Striding(reader, TOKENS, window=60, patience=6), memory)
    said = [w.token for w in written]
    assert said[:38] == tokens[:38] and said.count(FIRST_PIECE + 5) < 6  # not those that made stalls
    assert written[-1].frame > 5 * 50  # it went on behind the place where it was stuck


def test_where_ctc_hears_nothing_nothing_is_written():
    memory = memory_of(ids("abc def"), frames=200)
    voiced = torch.zeros(200)
    assert run(Striding(Reader(), TOKENS, window=80), memory, voiced=voiced)[0] == []


def test_no_memory_is_no_text():
    striding = Striding(Reader(), TOKENS)
    assert run(striding, torch.zeros(1, 0, 2))[0] == []


def test_repeats():
    assert repeats([9, 1, 2, 1, 2, 1, 2]) and repeats([4, 4, 4])
    assert not repeats([1, 2, 1, 2]) and not repeats([1, 2, 3, 1, 2, 4, 1, 2])
    assert not repeats([])


def test_bad_settings_are_refused():
    with pytest.raises(ValueError, match="striding: need"):
        Striding(Reader(), TOKENS, stride=0.6, ahead=0.5)


def test_written_is_a_pair():
    assert tuple(Written(7, 3)) == (7, 3) and SPEAKERS > 1
