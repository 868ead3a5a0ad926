"""pocketsphinx' English as it says it itself, and the part of it that is worth its bytes."""

from pathlib import Path

import numpy as np
import pocketsphinx
import pytest

from melstate.asr.backoff import START
from melstate.recipes import prune_ngrams
from melstate.recipes.prune_ngrams import prune, read_ngrams, restrict
from melstate.recipes.sphinx_model import HEADER, read_sphinx

ENGLISH = Path(pocketsphinx.get_model_path()) / "en-us" / "en-us.lm.bin"
SENTENCES = ["the end of the day", "i do not know what to say", "thank you very much", "it was a long time ago"]


@pytest.fixture(scope="module")
def english():
    return read_sphinx(ENGLISH)


def test_every_n_gram_has_the_probability_that_pocketsphinx_gives_it(english):
    unit = pocketsphinx.LogMath(1.0001)
    model = pocketsphinx.NGramModel(pocketsphinx.Config(), unit, str(ENGLISH))
    rng = np.random.default_rng(0)
    for n in (1, 2, 3):
        assert len(english.tables[n]) > 50_000 and len(np.unique(english.tables[n][:1000], axis=0)) == 1000
        for i in rng.integers(0, len(english.tables[n]), 200):
            gram = [english.words[j] for j in english.tables[n][i]]
            assert english.logs[n][i] == pytest.approx(unit.log_to_ln(model.prob(gram[::-1])), abs=2e-3), gram


def perplexity(model, sentences):
    logs = []
    for sentence in sentences:
        history = model.start
        for word in sentence.split():
            logs.append(model.log_probability(history, model.symbol(word)))
            history = (*history, model.symbol(word))[-2:]
    return np.exp(-np.mean(logs))


def test_what_is_pruned_matters_least(english):
    small = restrict(english, [w for w in english.words if w != "zulu"], 5000)
    assert len(small.words) == 5000 and small.words[0] == "the" and "<s>" not in small.words
    assert (small.tables[2][:, 0] == START).any()
    whole = prune(small, 10**9)
    models = [prune(small, count) for count in (30_000, 3_000, 0)]
    assert [len(m.grams[2]) + len(m.grams[3]) for m in models] == [30_000, 3_000, 0]
    found = [perplexity(model, SENTENCES) for model in (whole, *models)]
    assert found[1] < found[2] < found[3] and found[3] > 5 * found[0]
    assert found[1] == pytest.approx(found[0], rel=0.5)


def test_the_command_writes_what_export_reads(english, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(prune_ngrams, "read_sphinx", lambda path: english)
    (tmp_path / "words").write_text("THE  DH AH0\nday  D EY1\nzzz  Z\n")
    output = str(tmp_path / "n.npz")
    assert prune_ngrams.main([output, "--dictionary", str(tmp_path / "words"), "--grams", "4"]) == 0
    assert "3 of 1" in capsys.readouterr().out
    assert set(read_ngrams(output).words) == {"the", "day"}
    monkeypatch.undo()
    for data, message in ((b"other", "not a CMU Sphinx trie"), (HEADER + b"\3" + b"\1" * 40, "download it again")):
        (tmp_path / "broken").write_bytes(data)
        argv = [output, "--dictionary", str(tmp_path / "words"), "--model", str(tmp_path / "broken")]
        assert prune_ngrams.main(argv) == 1 and message in capsys.readouterr().err
    with pytest.raises(FileNotFoundError, match="prune_ngrams makes them"):
        read_ngrams(tmp_path / "none.npz")
    with pytest.raises(ValueError, match="prune_ngrams makes them"):
        read_ngrams(tmp_path / "broken")
