"""Rows cut between words: what is kept is what is said there, and nothing else about a row changes."""

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.asr.tokens import END, FIRST_PIECE
from melstate.recipes import align_words
from melstate.recipes.data.clips import load_times, place_words, save_times
from melstate.recipes.data.recognition import RecognitionData
from melstate.recipes.data.speech_rows import KEPT, Augmentation, Joining
from melstate.recipes.recognizers import read_model
from melstate.vocoders import checkpoint

SPEECH = Path(__file__).parents[1] / "speech"
CORPORA = {"six": {"layout": "ljspeech", "folder": str(SPEECH), "speaker": "one", "dev_prompts": 2}}
PLAIN = Augmentation(1.0, 1.0, (-26.0, 0.0), 0.0, babble_chance=0.0, room_chance=0.0, band_chance=0.0, silence_chance=0)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("shifted")


@pytest.fixture(scope="module")
def run(place, train_recognizer):
    """A first stage of one step, and where its words are."""
    train_recognizer(place, "recognizer", "trainer.max_steps=1", "trainer.val_check_interval=1")
    assert align_words.main(["--run", str(place / "recognizer")]) == 0
    return place / "recognizer"


@pytest.fixture(scope="module")
def load(place):
    def call(alignments=None, **options):
        cache = str(place / "waveforms")
        data = RecognitionData(
            CORPORA, cache=cache, folder="/", pieces=0, batch_seconds=12, alignments=alignments, **options
        )
        data.setup()
        return data

    return call


@pytest.fixture(scope="module")
def even(place, load):
    """A file that says that every word is equally long, with small gaps."""
    times = {}
    for clip in load().train:
        count, seconds = len(clip.text.split()), len(clip.waveform.speech) / 16000
        starts = np.arange(count) * seconds / count
        times[clip.waveform.recording.id] = np.stack([starts + 0.02, starts + seconds / count - 0.03], axis=1)
    save_times(place / "even.npz", times)
    return str(place / "even.npz")


@pytest.fixture(scope="module")
def data(even, load):
    return load(even)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one[:-1], other[:-1], strict=True)) and one.texts == other.texts


def test_tight_rows_leave_no_silence_around_speech(data):
    floor, joining = np.log(data.mel.floor), Joining(chance=0.0)
    silent = {}
    for chance in (0.0, 1.0):
        source = replace(data.source(), joining=joining, augmentation=replace(PLAIN, tight_chance=chance))
        rows = [
            mel[:frames].amax(1) <= floor + 1e-3
            for batch in map(source.batch, range(12))
            for mel, frames in zip(batch.mels, batch.mel_lengths, strict=True)
        ]
        silent[chance] = np.mean([row.sum().item() for row in rows]) / 100  # seconds a row
    assert silent[0.0] > 0.25 and silent[1.0] < silent[0.0] - 0.2


def test_rows_have_as_much_silence_around_them_as_asked(data):
    floor, silent = np.log(data.mel.floor), {}
    for edges in ((0.2, 0.2), (1.0, 1.0), (0.2, 1.0)):
        source = replace(data.source(), joining=Joining(chance=0.0), augmentation=replace(PLAIN, edges=edges))
        silent[edges] = [
            (mel[:frames].amax(1) <= floor + 1e-3).sum().item() / 100  # seconds of a row
            for batch in map(source.batch, range(12))
            for mel, frames in zip(batch.mels, batch.mel_lengths, strict=True)
        ]
    least, most, drawn = silent.values()
    assert np.mean(most) - np.mean(least) == pytest.approx(0.8, abs=0.1)
    assert np.mean(least) + 0.1 < np.mean(drawn) < np.mean(most) - 0.1 and np.std(drawn) > np.std(least) + 0.1


def test_every_training_clip_is_aligned(run, data):
    found = load_times(run / "words.npz")
    assert set(found) == {clip.waveform.recording.id for clip in data.train}
    for clip in data.train:
        times = found[clip.waveform.recording.id]
        assert len(times) == len(clip.text.split()) and (np.diff(times.reshape(-1)) >= 0).all()
        assert times[0, 0] >= 0 and times[-1, 1] <= len(clip.waveform.speech) / 16000 + 0.04


def test_a_clip_is_aligned_alike_alone_and_among_others(run, data):
    model, tokens = read_model(run)
    together, problems = align_words.word_times(model, tokens, data.train)
    assert problems == []
    for clip in data.train:
        alone, _ = align_words.word_times(model, tokens, [clip])
        for name, times in alone.items():
            np.testing.assert_array_equal(times, together[name])


def test_clips_that_cannot_be_aligned_are_left_out_and_named(run, data):
    model, tokens = read_model(run)
    first, second, third = data.train[:3]
    hasty = first._replace(text="wow " * 400)
    found, problems = align_words.word_times(model, tokens, [hasty, second, third, third])
    assert list(found) == [second.waveform.recording.id] and len(problems) == 2
    assert any("cannot hold" in p for p in problems) and any("several clips" in p for p in problems)


def test_a_run_without_weights_is_one_line(tmp_path, capsys):
    assert align_words.main(["--run", str(tmp_path)]) == 1
    assert capsys.readouterr().err.startswith("align-words: ")


@pytest.mark.parametrize("side", ["before", "after"])
def test_what_is_kept_lies_at_its_words(data, side):
    for clip in data.train:
        words, whole = clip.words, clip.waveform
        for word in range(1, len(words.starts)):
            part = getattr(clip, side)(word)
            kept = slice(None, word) if side == "before" else slice(word, None)
            assert part.text.split() == clip.text.split()[kept]
            assert data.tokens.decode(part.tokens) == part.text
            assert list(part.tokens) == data.tokens.encode(part.text)
            # the cut lies between the two words, and the sound from there on is the clip's own
            if side == "before":
                cut = part.waveform.stop
                np.testing.assert_array_equal(part.waveform.audio, whole.audio[:cut])
            else:
                cut = len(whole.audio) - len(part.waveform.audio)
                np.testing.assert_array_equal(part.waveform.audio, whole.audio[cut:])
            assert words.stops[word - 1] <= cut - whole.start <= words.starts[word]
            for old, new in ((words.starts, part.words.starts), (words.stops, part.words.stops)):
                shift = cut if side == "after" else whole.start
                np.testing.assert_array_equal(new + shift, old[kept] + whole.start)
            for number in range(len(part.words.starts)):
                ids = part.tokens[part.words.pieces[number] : part.words.pieces[number + 1]]
                assert data.tokens.decode(ids) == part.text.split()[number]
        assert clip.before(word).phones + clip.after(word).phones == clip.phones and clip.phones


def test_the_quietest_place_between_two_words_parts_them(data):
    clip = data.train[0]
    audio = np.full(16000, 8000, np.int16)
    audio[6000:6400] = 10
    waveform = clip.waveform._replace(audio=audio, start=1000, stop=16000)
    words = place_words(np.array([[0.1, 0.2], [0.6, 0.9]]), 16000, 15000, [[6], [7, 8]], [])
    clip = clip._replace(waveform=waveform, words=words, tokens=(6, 7, 8), text="a bc")
    assert 6100 <= len(clip.before(1).waveform.audio) <= 6300
    assert clip.after(1).tokens == (7, 8) and clip.after(1).phones == ()  # not known which are which word's


def rows(data, joining, count=12):
    """The source, the clips of some rows, one or two in turn, and the rows."""
    source = replace(data.source(), joining=joining, augmentation=PLAIN)
    picks = [[n % 4, (n + 1) % 4][: 1 + n % 2] for n in range(count)]
    found = [source.row(np.random.default_rng([5, n]), numbers, 9.0) for n, numbers in enumerate(picks)]
    return [[source.clips[number] for number in numbers] for numbers in picks], found


def test_cut_rows_begin_and_end_in_speech(data):
    for clips, row in zip(*rows(data, Joining(cut_chance=1.0)), strict=True):
        text, every = row.text.split(), " ".join(clip.text for clip in clips).split()
        begin = next(i for i in range(len(every)) if every[i : i + len(text)] == text)
        assert begin > 0 and row.audio[:160].any()  # no silence is added at a cut
        if len(clips) > 1:  # a clip alone is too short for a second cut
            assert begin + len(text) < len(every) and row.audio[-160:].any()
            assert row.spoken[-1] >= FIRST_PIECE  # no speaker, no end: speech goes on
        assert data.tokens.decode(row.tokens) == row.text
        assert [token for token in row.spoken if token >= FIRST_PIECE] == row.tokens
        assert len(row.audio) >= KEPT * 16000 and row.phones


def test_rows_cut_on_one_side_are_filled_on_the_other(data):
    _, found = rows(data, Joining(cut_chance=0.5), 40)
    ends = [row for row in found if row.spoken[-1] != END]
    assert 8 < len(ends) < 32
    for row in found:
        assert row.spoken[-1] != END or row.spoken[-2:] == [END, END]
    assert any(len(row.audio) == 9 * 16000 and not row.audio[:160].any() for row in ends)


def test_without_a_chance_or_without_words_nothing_changes(data, load):
    plain = load()
    sources = [plain.source(), data.source(), load(joining={"cut_chance": 0.3}).source()]
    for index in range(4):
        first, *others = [source.batch(index) for source in sources]
        assert all(same(first, other) for other in others)


def test_cut_batches_depend_on_their_number_alone(even, load):
    one, other = (load(even, joining={"cut_chance": 0.5}).source() for _ in range(2))
    later = [other.batch(index) for index in (4, 1)]
    assert same(one.batch(1), later[1]) and same(one.batch(4), later[0])
    assert not same(one.batch(1), load(joining={}).source().batch(1))


def test_phones_that_are_not_known_are_not_learned(data, run):
    """A row with words and no phones teaches the phone head nothing, least of all to be silent."""
    model, _ = read_model(run)
    batch = data.source().batch(0)
    assert len(batch.texts) > 1 and (batch.phone_lengths > 0).all()
    hidden = batch._replace(phone_lengths=torch.cat([torch.zeros(1, dtype=torch.long), batch.phone_lengths[1:]]))
    with torch.no_grad():
        rest = model.losses(type(batch)(*(values[1:] for values in batch)))["phones"]
        torch.testing.assert_close(model.losses(hidden)["phones"], rest, atol=1e-4, rtol=1e-4)
    none = model.losses(batch._replace(phone_lengths=torch.zeros_like(batch.phone_lengths)))["phones"]
    none.backward()
    assert none.item() == 0 and all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    nothing = batch._replace(
        phone_lengths=torch.zeros_like(batch.phone_lengths), token_lengths=torch.zeros_like(batch.token_lengths)
    )
    assert model.losses(nothing)["phones"].item() > 0  # where nothing is said, that is learned


def test_times_of_other_texts_are_not_used(even, load, tmp_path):
    times = load_times(even)
    names = list(times)
    times[names[0]] = times[names[0]][:-1]
    times[names[1]] = times[names[1]] + 100
    times["another corpus"] = np.zeros((3, 2))
    save_times(tmp_path / "words.npz", times)
    with pytest.warns(UserWarning, match="2 clips do not fit") as caught:
        data = load(str(tmp_path / "words.npz"))
    assert len(caught) == 1 and "words, the text has" in str(caught[0].message)
    assert {clip.waveform.recording.id for clip in data.train if clip.words is None} == set(names[:2])


def test_files_that_are_no_times_are_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="align_words --run"):
        load_times(tmp_path / "none.npz")
    save_times(tmp_path / "whole.npz", {"a": np.array([[0.1, 0.2]])})
    whole = (tmp_path / "whole.npz").read_bytes()
    for spoiled in (b"words", b"", whole[:60], whole[:-60]):
        (tmp_path / "spoiled.npz").write_bytes(spoiled)
        with pytest.raises(ValueError, match="not word times"):
            load_times(tmp_path / "spoiled.npz")
    np.savez(tmp_path / "short.npz", ids=np.array(["a"]), words=np.array([2]), times=np.zeros((1, 2)))
    with pytest.raises(ValueError, match="do not go together"):
        load_times(tmp_path / "short.npz")
    save_times(tmp_path / "nothing.npz", {})
    assert load_times(tmp_path / "nothing.npz") == {}


def test_the_second_stage_goes_on_from_the_first(run, place, train_recognizer):
    """As the experiment's comment says: weights of the first stage, its words, a step."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*dataloader.*")
        steps = ["trainer.max_steps=1", "trainer.val_check_interval=1", "task.lr=1e-9"]
        path = train_recognizer(place, "second", *steps, experiment="recognizer_shifted")
    first, second = checkpoint.read(run / "model.safetensors"), checkpoint.read(path)
    for name, tensor in first.tensors.items():
        torch.testing.assert_close(second.tensors[name], tensor, atol=1e-5, rtol=1e-5, msg=name)
