"""The long-form benchmark on a model that knows nothing: what is read, merged, timed and counted."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.asr.model import SpeechModel
from melstate.asr.tokens import END, FIRST_PIECE, Tokens
from melstate.recipes.bench import longform, longform_systems
from melstate.recipes.bench.longform import Measured, manifests, plot, table
from melstate.recipes.bench.longform_systems import (
    Bare,
    Word,
    attention_path,
    chunks,
    ctc,
    oracle,
    read_audio,
    read_blocks,
)
from melstate.recipes.data.conversations import RATE, Conversation, SaidWord, Stretch
from melstate.vocoders import checkpoint, wav


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A tiny model with random weights, and the file it is in."""
    torch.manual_seed(0)
    tokens = Tokens()
    small = SpeechModel(
        len(tokens),
        encoder={"dim": 16, "layers": 2, "channels": 4, "mixer": "gru", "conv": 0},
        decoder={"dim": 16, "layers": 1, "mixer": "gru"},
    )
    small.eval().set_statistics(torch.full((80,), -6.0), torch.full((80,), 2.0))
    with torch.no_grad():
        small.ctc.weight *= 20  # so that its best path changes its mind
        small.ctc.bias[0] -= 20
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    checkpoint.save(path, small, extra={"tokens": tokens.to_dict()})
    return path


@pytest.fixture(scope="module")
def audio(tmp_path_factory):
    path = tmp_path_factory.mktemp("audio") / "noise.wav"
    rng = np.random.default_rng(0)
    wav.write(path, rng.normal(0, 0.1, 40 * RATE) * np.repeat(rng.uniform(0, 1, 400), RATE // 10), RATE)
    return path


def test_words_are_cut_out_of_tokens(model):
    bare, ids = Bare(model), Tokens().encode("ab c")
    written = [(token, 10 * n) for n, token in enumerate(ids)]
    found = list(bare.words(iter(written), 5.0))
    assert [word.text for word in found] == ["ab", "c"]
    assert (
        bare.frame == 0.04
        and found[0].start == 5.0
        and found[1].end == pytest.approx(5 + 0.04 * (10 * (len(ids) - 1) + 1))
    )
    marks = [(ids[0], 0), (ids[1], 1), (END, 2), (ids[1], 3), (FIRST_PIECE - 1, 4), (ids[2], 5)]
    assert [word.text for word in bare.words(marks)] == ["a", "a", "b"]
    assert list(bare.words([])) == []


def test_a_file_is_read_in_blocks_anywhere(audio, tmp_path):
    whole, _ = wav.read(audio)
    np.testing.assert_array_equal(np.concatenate(list(read_blocks(audio, RATE))), whole)
    np.testing.assert_array_equal(read_audio(audio, RATE, 3.25, 9.5), whole[52000:152000])
    assert len(read_audio(audio, RATE, 39, 99)) == RATE and len(read_audio(audio, RATE, 50)) == 0
    wav.write(tmp_path / "x.wav", whole[:8000], 8000)
    with pytest.raises(ValueError, match="8000 Hz"):
        read_audio(tmp_path / "x.wav", RATE)


def test_streamed_ctc_is_the_best_path_of_the_whole(model, audio):
    bare = Bare(model)
    streamed = list(ctc(str(model), audio, []))
    at_once = list(bare.words(longform_systems.ctc_path(bare, [bare.memory(wav.read(audio)[0])])))
    assert len(streamed) > 20 and streamed == at_once
    assert all(0 <= a.start < a.end <= 40.1 and a.end <= b.end for a, b in zip(streamed, streamed[1:], strict=False))


def test_attention_is_bounded_and_placed(model, audio):
    bare = Bare(model)
    path = attention_path(bare, bare.memory(read_audio(audio, RATE, 0, 2)))
    assert len(path) <= 2 * 50 and all(0 <= frame < 50 for _, frame in path)
    assert attention_path(bare, torch.zeros(1, 0, 16)) == []


def test_turns_are_heard_one_by_one(model, audio):
    found = list(oracle(str(model), audio, [(1.0, 2.0), (10.0, 11.0)]))
    assert found and all(1 <= w.start < 2.1 or 10 <= w.start < 11.1 for w in found)


@pytest.mark.parametrize("system", ["product", "product-oracle", "striding", "full"])
def test_other_systems_write_words_where_there_is_sound(model, audio, system):
    found = list(longform_systems.SYSTEMS[system](str(model), audio, [(1.0, 3.0), (5.0, 8.0)]))
    assert all(word.text and 0 <= word.start <= word.end <= 41 for word in found)
    if system == "product-oracle":
        assert all(1 <= word.start <= 3.1 or 5 <= word.start <= 8.1 for word in found)


def test_overlapping_chunks_are_merged_in_the_middle(model, audio, monkeypatch):
    """Chunks of 30 s begin at 0 and 25 s; each hears a word every second of its own."""
    ticks = [(FIRST_PIECE + (n % 2), 25 * n) for n in range(60)]

    def every_second(bare, memory):
        return [(token, frame) for token, frame in ticks if frame < memory.shape[1]]

    monkeypatch.setattr(longform_systems, "attention_path", every_second)
    starts = [word.start for word in chunks(30.0, 5.0, str(model), audio, [])]
    assert starts == pytest.approx(list(range(0, 40, 2)), abs=1.01)
    assert len(starts) == len(set(starts))


def conversation():
    return Conversation(1, 0, ("a",), (0,), (0,), (Stretch("silence", 20 * RATE, 50 * RATE),))


def test_everything_is_counted():
    reference = [SaidWord(text, n, n + 0.5, who) for n, (text, who) in enumerate(zip("abcdef", "xxyyxy", strict=True))]
    heard = [Word(word.text, word.start, word.end, {"x": 0, "y": 1}[word.speaker]) for word in reference]
    heard[1] = heard[1]._replace(text="z")
    heard[3] = heard[3]._replace(speaker=0)
    heard.append(Word("um", 30.0, 30.5, 1))
    row = Measured("product", 1)
    ran = {"seconds": 3.0, "cpu_seconds": 1.5, "peak_bytes": 2**20 * 100, "audio_seconds": 60.0}
    row.add(reference, heard, conversation(), ran)
    summary = row.summary()
    assert (summary["substitutions"], summary["deletions"], summary["insertions"], summary["words"]) == (1, 0, 1, 6)
    assert summary["wer"]["value"] == pytest.approx(2 / 6) and row.by_speaker == {"x": [1, 3], "y": [1, 3]}
    # The word given to the wrong speaker is missing from one transcript and too many in the other.
    assert summary["cpwer"] == pytest.approx(4 / 6) and summary["tcpwer"]["0.5 s"] == pytest.approx(4 / 6)
    assert summary["mwde"] == pytest.approx(1 / 6)
    assert (
        summary["words_per_minute_of_pause"] == 2 and summary["real_time_factor"] == 0.05 == 2 * summary["cpu_factor"]
    )
    row.add(
        reference, [Word(w.text, w.start, w.end) for w in heard[:6]], conversation(), ran | {"peak_bytes": 2**20 * 90}
    )
    summary = row.summary()
    assert summary["words"] == 12 and summary["peak_mebibytes"] == 100 and summary["words_per_minute_of_pause"] == 1
    silent = Measured("ctc", 1)
    silent.add(reference, [], conversation(), ran)
    assert silent.summary()["cpwer"] is None and silent.summary()["deletions"] == 6
    assert "product" in table([summary, silent.summary()])


def test_a_plot_is_drawn(tmp_path):
    rows = [{"system": "ctc", "minutes": minutes, "wer": {"value": 0.5}} for minutes in (1, 10)]
    plot(rows, tmp_path / "wer.png")
    assert (tmp_path / "wer.png").stat().st_size > 1000


def test_manifests_are_in_the_package():
    found = manifests([1, 10, 60, 240])
    assert [minutes for minutes, _ in found] == [1] * 8 + [10] * 2 + [60, 240]
    for minutes, path in found:
        assert Conversation.load(path).minutes == minutes
    with pytest.raises(ValueError, match="no conversation of 7 minutes"):
        manifests([7])


@pytest.mark.slow
def test_the_benchmark_end_to_end(model, tmp_path):
    data = Path(longform.__file__).parents[2].parent / "shared" / "data"
    if not data.is_dir():
        pytest.skip("needs the training speech beside the checkout")
    args = [str(data), "--model", str(model), "--systems", "ctc", "--minutes", "1", "--cache", str(tmp_path)]
    assert longform.main([*args, "--json", str(tmp_path / "r.json")]) == 0
    (row,) = json.loads((tmp_path / "r.json").read_text())["rows"]
    assert row["words"] > 500 and row["peak_mebibytes"] > 100
    args[args.index("ctc")] = "oracle-ctc"
    assert longform.main([*args, "--add", str(tmp_path / "r.json"), "--json", str(tmp_path / "both.json")]) == 0
    both = json.loads((tmp_path / "both.json").read_text())
    assert len(both["about"]) == 2 and [row["system"] for row in both["rows"]] == ["oracle-ctc", "ctc"]


@pytest.mark.slow
def test_a_system_that_fails_is_named(model, tmp_path):
    with pytest.raises(RuntimeError, match="ctc failed"):
        longform.run_system("ctc", str(model), tmp_path / "none.wav", [], 1)
