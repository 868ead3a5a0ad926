"""The network for unknown words, and the recipe that trains it."""

import pytest
import torch

from melstate.recipes import train_g2p
from melstate.tts.text import g2p, symbols
from melstate.tts.text.lexicon import Lexicon, dictionary


def test_batching_does_not_change_a_word():
    words = ["brillig", "a", "slithy", "outgrabe", "brillig", "o'toole"]
    together = g2p.predict(g2p.shipped(), words)
    assert together == [g2p.predict(g2p.shipped(), [word])[0] for word in words]
    assert together[0] == together[4]


def test_decoding_merges_neighbours_and_drops_blanks():
    rows = torch.eye(len(symbols.PHONES) + 1)[[3, 3, 0, 3, 7, 7, 0]]
    expected = tuple(symbols.PHONES[index - 1] for index in (3, 3, 7))
    assert g2p.decode(rows[None]) == [expected]


@pytest.mark.parametrize("word", ["", "naïve", "a b", "3"])
def test_other_characters_are_named(word):
    with pytest.raises(ValueError, match="must consist of"):
        g2p.encode([word])


def test_the_shipped_network_knows_most_common_words():
    """Not a benchmark (the recipe prints the held-out error): a wrong file or letter order would get none right."""
    words = [word for word in list(dictionary())[::400] if len(word) > 2 and set(word) <= set(g2p.LETTERS)]
    guesses = g2p.predict(g2p.shipped(), words)
    right = sum(
        train_g2p.without_stress(guess) in {train_g2p.without_stress(one) for one in Lexicon().listed(word)}
        for word, guess in zip(words, guesses, strict=True)
    )
    assert right > 0.6 * len(words)


@pytest.mark.parametrize(
    ("a", "b", "distance"), [("", "", 0), ("abc", "abc", 0), ("abc", "axc", 1), ("abc", "", 3), ("ab", "cab", 1)]
)
def test_edit_distance(a, b, distance):
    assert train_g2p.edits(tuple(a), tuple(b)) == distance


def test_the_split_is_fixed_and_disjoint():
    entries = {
        word: [("AH0",)] for word in (f"{a}{b}{c}" for a in g2p.LETTERS for b in g2p.LETTERS for c in g2p.LETTERS)
    }
    train, held = train_g2p.split(entries)
    assert (
        len(held) == train_g2p.HELD_OUT and not set(train) & set(held) and train.keys() | held.keys() == entries.keys()
    )
    assert train_g2p.split(dict(reversed(entries.items())))[1].keys() == held.keys()


def test_training_lowers_the_loss_and_an_exported_file_is_the_network(tmp_path, monkeypatch):
    torch.manual_seed(0)
    net = g2p.LetterNet(embedding=8, hidden=16, layers=1)
    words, spoken = ["cat", "act", "tac"], [("K", "AE1", "T"), ("AE1", "K", "T"), ("T", "AE1", "K")]
    optimizer = torch.optim.Adam(net.parameters(), 0.05)
    losses = []
    for _ in range(60):
        value = train_g2p.loss(net, words, spoken)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        losses.append(value.item())
    assert losses[-1] < 0.1 * losses[0] and g2p.predict(net.eval(), words) == spoken
    train_g2p.export(net, tmp_path / "g2p.safetensors")
    monkeypatch.setattr(g2p, "PATH", tmp_path / "g2p.safetensors")
    assert g2p.predict(g2p.shipped.__wrapped__(), words) == spoken
    monkeypatch.setattr(g2p, "SLOTS", 4)
    with pytest.raises(ValueError, match="slots 3 is not 4"):
        g2p.shipped.__wrapped__()
