"""The recogniser's recipe as users run it, on six clips: data, training that resumes bit for bit, export, tuning."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.asr import Recognizer
from melstate.asr.augment import level
from melstate.asr.backoff import BackoffModel
from melstate.asr.decoding import Decoding
from melstate.asr.tokens import END, FIRST_PIECE
from melstate.recipes import export_recognizer, tune_recognizer
from melstate.recipes.data.recognition import PHONES, RecognitionData, phones_of, read_corpus
from melstate.recipes.data.speech_rows import Augmentation, Joining
from melstate.recipes.data.waveforms import speech_bounds
from melstate.tts.text import FrontEnd
from melstate.vocoders import checkpoint, wav

SPEECH = Path(__file__).parents[1] / "speech"
CORPORA = {"six": {"layout": "ljspeech", "folder": str(SPEECH), "speaker": "one", "dev_prompts": 2}}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("recognition")


@pytest.fixture(scope="module")
def data(place):
    data = RecognitionData(CORPORA, cache=str(place / "waveforms"), folder="/", pieces=0, batch_seconds=12)
    data.setup()
    return data


@pytest.fixture(scope="module")
def run(place, train_recognizer):
    return partial(train_recognizer, place)


def test_batches_depend_on_their_number_alone(data):
    source, again = data.source(), data.source()
    later = [again.batch(index) for index in (3, 0)]
    for index, other in ((0, later[1]), (3, later[0])):
        for one, same in zip(source.batch(index)[:-1], other[:-1], strict=True):
            assert torch.equal(one, same)


def test_rows_hold_what_is_said_in_them(data):
    for index in range(6):
        batch = data.source().batch(index)
        assert batch.mels.shape[1] == batch.mel_lengths.max() and torch.isfinite(batch.mels).all()
        for row, text in enumerate(batch.texts):
            tokens = batch.tokens[row, : batch.token_lengths[row]].tolist()
            spoken = batch.spoken[row, : batch.spoken_lengths[row]].tolist()
            assert data.tokens.decode(tokens) == text
            assert [token for token in spoken if token >= FIRST_PIECE] == tokens
            assert spoken[-1] == END and (not text or spoken[-2:] == [END, END])
            assert (batch.phone_lengths[row] > 0) == bool(text) and batch.phones.max() <= len(PHONES)
            assert batch.mel_lengths[row] / 4 >= batch.token_lengths[row]


def test_batches_waste_little(data):
    batches = [data.source().batch(index) for index in range(12)]
    real = sum(int(batch.mel_lengths.sum()) for batch in batches)
    assert real > 0.85 * sum(batch.mels.shape[0] * batch.mels.shape[1] for batch in batches)


def test_clips_without_weight_are_never_heard(data):
    kept = min(data.train, key=lambda clip: len(clip.waveform.speech))
    rows = replace(data.source(), clips=[clip._replace(weight=float(clip is kept)) for clip in data.train])
    heard = {word for index in range(8) for text in rows.batch(index).texts for word in text.split()}
    assert heard == set(kept.text.split())
    with pytest.raises(ValueError, match="no clip to train on"):
        replace(data.source(), clips=[kept._replace(weight=0.0)])


@pytest.mark.parametrize("knock_chance", [0.0, 1.0])
def test_noise_rows_say_nothing(data, knock_chance):
    data.augmentation, before = Augmentation(silence_chance=1.0, knock_chance=knock_chance), data.augmentation
    batch = data.source().batch(0)
    data.augmentation = before
    assert batch.texts == ("",) * len(batch.texts) and batch.token_lengths.sum() == 0
    assert batch.spoken.tolist() == [[END]] * len(batch.texts)


LEVEL_ONLY = Augmentation(1.0, 1.0, (-26.0, 0.0), 0.0, babble_chance=0, room_chance=0, band_chance=0, silence_chance=0)


def test_knocks_are_as_loud_beside_speech_as_asked(data):
    quiet = replace(data.source(), augmentation=LEVEL_ONLY)
    knocked = replace(data.source(), augmentation=replace(LEVEL_ONLY, knock_chance=1.0, knock_ratio=(20.0, 20.0)))
    for seed in range(3):
        before, after = (rows.row(np.random.default_rng(seed), [0], 4.0) for rows in (quiet, knocked))
        assert after.text == before.text and len(after.audio) == len(before.audio)
        loudest = np.abs(after.audio - before.audio).max() / level(before.audio) ** 0.5
        assert 1.0 < loudest < 25.0  # single knocks are up to 20 dB below the loudest that there may be


def test_gated_noise_is_where_speech_is_and_nowhere_else(data):
    quiet = replace(data.source(), augmentation=LEVEL_ONLY)
    noisy = replace(LEVEL_ONLY, noise_chance=1.0, noise_ratio=(10.0, 10.0))
    steady, gated = (replace(data.source(), augmentation=replace(noisy, gated_chance=chance)) for chance in (1e-9, 1.0))
    for seed in range(5):
        before, over, inside = (
            rows.row(np.random.default_rng(seed), [0], 4.0).audio for rows in (quiet, steady, gated)
        )
        said = np.flatnonzero(before)
        clip = slice(said[0], said[-1] + 1)
        assert not inside[: clip.start].any() and not inside[clip.stop :].any()
        assert np.count_nonzero(over) > len(over) - 10  # the same noise is everywhere where it is not gated
        assert np.array_equal(inside[clip], over[clip]) and np.abs(inside[clip] - before[clip]).max() > 0


def test_late_clips_lack_their_edges_and_no_more_than_asked(data):
    whole = replace(data.source(), augmentation=LEVEL_ONLY)
    late = replace(data.source(), augmentation=replace(LEVEL_ONLY, late_chance=1.0, late=0.1))
    lost = []
    for seed in range(20):
        before, after = (rows.row(np.random.default_rng(seed), [0], 0.0) for rows in (whole, late))
        assert after.text == before.text
        lost.append((len(before.audio) - len(after.audio)) / 16000)
    assert max(lost) <= 0.2 and max(lost) > 0.1 and len(set(lost)) > 10


def test_joined_rows_end_utterances_at_pauses(data):
    data.joining, before = Joining(chance=1.0, seconds=(12.0, 12.0), pause=2.0, utterance=0.0), data.joining
    batch = data.source().batch(0)
    data.joining = before
    ends = [(row[: batch.spoken_lengths[r]] == END).sum() for r, row in enumerate(batch.spoken)]
    assert max(ends) >= 3


def test_dev_clips_are_whole_and_never_trained_on(data):
    learned = {clip.text for clip in data.train}
    batches = [batch for loader in data.val_dataloader() for batch in loader]
    assert data.dev_names == ["six"] and not learned & {text for batch in batches for text in batch.texts}
    assert all(len(b.mel_lengths) * int(b.mel_lengths.max()) <= 1300 for b in batches if len(b.mel_lengths) > 1)


def test_phones_are_those_of_the_front_end():
    assert [[PHONES[i - 1] for i in word] for word in phones_of(FrontEnd(), "the cat")] == [
        ["DH", "AH"],
        ["K", "AE", "T"],
    ]


def test_speech_bounds_leave_silence_out():
    audio = np.zeros(48000, np.int16)
    audio[16000:32000] = 8000 * np.sin(np.arange(16000) / 5)
    start, stop = speech_bounds(audio, 16000)
    assert 14000 <= start <= 16000 and 32000 <= stop <= 34000
    assert speech_bounds(np.zeros(100, np.int16), 16000) == (0, 100)


def test_unknown_layouts_are_named():
    with pytest.raises(ValueError, match="'tapes' is not one of"):
        read_corpus("tapes", "/")
    with pytest.raises(ValueError, match="unknown options"):
        read_corpus("ljspeech", str(SPEECH), dev_prompts=2, speed=3)


def test_the_librispeech_experiment_runs_on_its_sample(place):
    """The shipped configuration, on two rows of a corpus in LibriSpeech's layout."""
    from hydra import compose, initialize_config_module
    from hydra.utils import instantiate

    chapter = place / "LibriSpeech" / "train-clean-100" / "1" / "2"
    chapter.mkdir(parents=True)
    clips = sorted((SPEECH / "wavs").iterdir())[:2]
    for number, clip in enumerate(clips):
        audio, rate = wav.read(clip, 16000)
        wav.write(chapter / f"1-2-{number:04d}.flac", audio, rate)
    (chapter / "1-2.trans.txt").write_text("1-2-0000 IT WAS HERE\n1-2-0001 AND THERE\n")
    overrides = [f"data.folder={place}", "data.corpora.librispeech.dev=[]", "data.pieces=0", f"runs_dir={place}"]
    overrides += ["task.model.tokens=34", "data.batch_seconds=8"]
    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        config = compose("train", ["experiment=recognizer_librispeech", *overrides])
    data, task = instantiate(config.data, _convert_="all"), instantiate(config.task, _convert_="all")
    data.setup()
    assert sum(p.numel() for p in task.model.parameters()) > 9e6
    task.fit_statistics(data.train)
    losses = task.model.losses(data.source().batch(0), mask=task.mask)
    assert all(torch.isfinite(loss) for loss in losses.values())


def test_a_resumed_run_equals_an_uninterrupted_one_and_can_be_exported(run, place, capsys):
    whole = checkpoint.read(run("whole", "trainer.max_steps=4"))
    run("parts", "trainer.max_steps=2")
    parts = checkpoint.read(run("parts", "trainer.max_steps=4"))
    for name, tensor in whole.tensors.items():
        assert torch.equal(tensor, parts.tensors[name]), name
    folder = place / "made"
    (place / "LICENSE").write_text("licence text")
    (place / "words").write_text("zebra  Z IY1 B R AH0\nzebra(2) Z\nzest Z EH1 S T\n'cause  K\n")
    common = ["--run", str(place / "whole"), "--licence", "CC0-1.0", "--licence-file", str(place / "LICENSE")]
    argv = [str(folder), *common, "--description", "Six clips.", "--dictionary", str(place / "words"), "--decoding"]
    assert export_recognizer.main([*argv, "pause=0.5", "width=4", "method=striding"]) == 0
    recognizer = Recognizer.load(folder)
    assert recognizer.decoding.pause == 0.5 and recognizer.decoding.width == 4
    assert recognizer.decoding.method == "striding" and recognizer.methods == ("words", "ctc", "striding")
    assert {"zebra", "zest"} < set(recognizer.parts.spoken.words) and "'cause" not in recognizer.parts.spoken.words
    words = ["zebra", "elsewhere"]
    codes = {1: np.full(3, 13, np.uint8), 2: np.zeros(0, np.uint8), 3: np.zeros(0, np.uint8)}
    grams = {1: np.arange(1, 4)[:, None], 2: np.zeros((0, 2), np.int64), 3: np.zeros((0, 3), np.int64)}
    np.savez(place / "english.npz", **BackoffModel(words, grams, codes).to_arrays())
    assert export_recognizer.main([*argv, "pause=0.5", "--english", str(place / "english.npz")]) == 0
    recognizer = Recognizer.load(folder)
    assert recognizer.decoding.method == "words" and recognizer.decoding.width == 100
    assert "zebra" in recognizer.parts.spoken.words and "zest" not in recognizer.parts.spoken.words
    assert recognizer.parts.language.general.words == ("zebra", "elsewhere")
    assert export_recognizer.main([*argv, "pause=0.5", "--english", str(place / "words")]) == 1
    assert "no n-grams" in capsys.readouterr().err
    assert "4 steps" in (folder / "card.md").read_text()
    assert export_recognizer.main([*argv, "speed=1"]) == 1 and "speed" in capsys.readouterr().err
    other = ["--average", str(run("second", "trainer.max_steps=1")), "--full"]
    assert export_recognizer.main([str(folder), *other, *argv[1:], "pause=0.5"]) == 0
    first, second = (checkpoint.read(place / name / "model.safetensors").tensors for name in ("whole", "second"))
    for name, tensor in checkpoint.read(folder / "model.safetensors").tensors.items():
        torch.testing.assert_close(tensor, (first[name] + second[name]) / 2)
    smaller = [
        "--average",
        str(run("smaller", "trainer.max_steps=1", "task.model.encoder.conv=5")),
    ]
    assert export_recognizer.main([str(folder), *smaller, *argv[1:]]) == 1
    assert "weights have no mean" in capsys.readouterr().err
    assert tune_recognizer.main([str(folder), "--run", str(place / "whole"), "--clips", "1", "--write"]) == 0
    assert "the best reading" in capsys.readouterr().out
    tuned = Recognizer.load(folder).decoding
    assert tuned.pause == 0.5 and tuned.final_language is not None and tuned.language == Decoding().language


def test_invented_sentences_teach_sound_and_no_language(place):
    whole = RecognitionData(CORPORA, str(place / "cache"), pieces=0, phones=False)
    halves = {name: {**CORPORA["six"], "dev_prompts": n} for name, n in (("said", 3), ("made", 2))}
    mixed = RecognitionData(
        {"said": halves["said"], "made": halves["made"] | {"invented": True}}, str(place / "cache"), pieces=0
    )
    for data in (whole, mixed):
        data.setup()
    assert whole.sentences == sorted({clip.text for clip in whole.train})
    assert len(mixed.train) == 3 + 4 and len(mixed.sentences) == 3
    assert set(mixed.sentences) < {clip.text for clip in mixed.train}


def test_weights_of_another_vocabulary_are_no_start(run, place):
    run("letters", "trainer.max_steps=1")
    start = f"init_from={place / 'letters' / 'model.safetensors'}"
    run("same", "trainer.max_steps=1", start)
    other = "data.pieces=30", "task.model.tokens=36"
    with pytest.raises(ValueError, match="learned another vocabulary"):
        run("other", "trainer.max_steps=1", start, *other)
