"""Batches by number: reproducible, whole, aligned with the audio they come from."""

import numpy as np
import pytest
import torch

from melstate.recipes.data.batches import Clip, SegmentBatches, UtteranceBatches, collate, join, join_sentences
from melstate.recipes.data.features import Features
from melstate.recipes.data.statistics import stand_ins
from melstate.recipes.data.steps import StepDataset, step_loader
from melstate.tts.text import symbols

HOP = 256


def clip(number, frames, phones=5, speaker=0):
    """A clip whose every array tells its frame."""
    t = np.arange(frames)
    features = Features(
        audio=np.repeat(t, HOP).astype(np.int16),
        mel=np.tile(t, (80, 1)).astype(np.float32) + 1000 * number,
        log_f0=np.full(frames, np.log(200.0), np.float32),
        voiced=(t % 2).astype(np.float32),
    )
    durations = np.full(phones, frames // phones)
    durations[-1] += frames - durations.sum()
    return Clip(f"c{number}", speaker, features, (1, *range(8, 6 + phones), 2), durations)


CLIPS = [clip(n, 40 + 7 * n) for n in range(24)]


def test_segments_are_cut_at_the_same_place_everywhere():
    source = SegmentBatches(CLIPS, HOP, batch_size=8, frames=16, seed=3)
    batch = source.batch(5)
    assert batch.mel.shape == (8, 80, 16) and batch.audio.shape == (8, 16 * HOP) and batch.f0.shape == (8, 16)
    frame = torch.round(batch.audio[:, ::HOP] * 32767)
    torch.testing.assert_close(batch.mel[:, 0] % 1000, frame)
    assert torch.equal(batch.f0 > 0, frame % 2 == 1)
    torch.testing.assert_close(batch.f0[batch.f0 > 0], torch.tensor(200.0).expand((batch.f0 > 0).sum()))


def test_every_segment_start_can_come():
    source = SegmentBatches([clip(0, 18), clip(1, 17)], HOP, batch_size=64, frames=16, seed=0)
    starts = {(float(m[0, 0]) // 1000, float(m[0, 0]) % 1000) for m in source.batch(0).mel}
    assert starts == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


def test_batches_depend_on_seed_and_number_alone():
    for make in (
        lambda seed: SegmentBatches(CLIPS, HOP, batch_size=4, frames=16, seed=seed),
        lambda seed: UtteranceBatches(CLIPS, batch_size=4, seed=seed, joined=0.5),
    ):
        one, two, other = make(1), make(1), make(2)
        two.batch(0)
        for number in (17, 3):
            assert torch.equal(one.batch(number)[2], two.batch(number)[2])
        assert not any(torch.equal(one.batch(n)[0], other.batch(n)[0]) for n in range(3))


def test_an_epoch_holds_every_utterance_once():
    source = UtteranceBatches(CLIPS, batch_size=6, seed=1)
    for epoch in range(2):
        ids = [name for n in range(4) for name in source.batch(4 * epoch + n).ids]
        assert sorted(ids) == sorted(c.id for c in CLIPS)


def test_collated_lengths_tell_the_padding():
    batch = collate([clip(1, 40, phones=5), clip(2, 60, phones=9)])
    assert batch.phones.shape == (2, 9) and batch.mels.shape == (2, 80, 60)
    assert batch.phones[0, 5:].eq(0).all() and batch.mels[0, :, 40:].eq(0).all()
    assert batch.durations.sum(1).tolist() == batch.mel_lengths.tolist() == [40, 60]


def test_joining_keeps_every_frame_and_drops_the_inner_edges():
    a, b = CLIPS[2], CLIPS[5]
    both = join(a, b)
    frames = a.features.mel.shape[1] + b.features.mel.shape[1]
    assert both.features.mel.shape[1] == frames == both.durations.sum()
    assert len(both.features.audio) == frames * HOP
    assert both.phones == a.phones[:-1] + b.phones[1:] and len(both.durations) == len(both.phones)
    seam = len(a.phones) - 2
    assert both.durations[seam] == a.durations[-2] + a.durations[-1] + b.durations[0]


def test_joined_sentences_have_one_begin_and_one_end():
    begin, end = symbols.ID[symbols.BEGIN], symbols.ID[symbols.END]
    assert join_sentences([(begin, 9, 10, end), (begin, 11, end)]) == (begin, 9, 10, 11, end)


def test_too_few_clips_and_too_short_clips_are_refused():
    with pytest.raises(ValueError, match="24 clips cannot fill a batch of 32"):
        UtteranceBatches(CLIPS, batch_size=32, seed=0)
    with pytest.raises(ValueError, match="no clip has 4000 frames"):
        SegmentBatches(CLIPS, HOP, batch_size=2, frames=4000, seed=0)


class Numbers:
    def batch(self, index):
        return torch.tensor(index)


def test_ranks_and_restarts_take_up_where_they_should():
    def first(n, **options):
        batches = iter(StepDataset(Numbers(), **options))
        return [int(next(batches)) for _ in range(n)]

    assert first(4, start=5) == [5, 6, 7, 8]
    assert first(3, rank=0, world=2) == [0, 2, 4] and first(3, rank=1, world=2) == [1, 3, 5]
    assert first(2, start=2, rank=1, world=2) == [5, 7]


def test_worker_processes_keep_the_order():
    loader = step_loader(Numbers(), start=3, rank=0, world=1, workers=2)
    batches = iter(loader)
    assert [int(next(batches)) for _ in range(6)] == [3, 4, 5, 6, 7, 8]


def test_rare_symbols_get_the_nearest_known_one():
    ids = symbols.ID
    phones = [ids[p] for p in ("AA1", "AA1", "OY0", "OY0", ".", ".", ",", ",", "?", "AA2")]
    found = stand_ins([clip(0, 40)._replace(phones=tuple(phones))], least=2)
    expected = {"AA0": "AA1", "AA2": "AA1", "OY1": "OY0", "OY2": "OY0", "!": ".", "?": ".", ";": ","}
    assert found == {ids[a]: ids[b] for a, b in expected.items()}
