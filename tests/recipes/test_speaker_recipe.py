"""The speaker recipe: what it draws, what it minimises, and that a short run learns to tell voices apart."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.recipes.data.recordings import read_layout
from melstate.recipes.data.speakers import SpeakerBatches, SpeakerClip, disturb, spoken
from melstate.recipes.lit_speaker import equal_error_rate, margin_logits
from melstate.recipes.train import train
from melstate.vocoders import checkpoint, wav

SPEECH = Path(__file__).parents[1] / "speech"


def buzz(pitch, seconds, rng):
    """A voice of a kind: a pulse train of `pitch` Hz, a resonance that depends on it, and some noise."""
    time = np.arange(round(seconds * 16000)) / 16000
    rate = pitch * (1 + 0.05 * np.sin(2 * np.pi * 3 * time + rng.uniform(0, 6)))
    phase = 2 * np.pi * np.cumsum(rate) / 16000
    pulses = sum(np.cos(k * phase) / (1 + ((k * pitch - 6 * pitch) / 300) ** 2) for k in range(1, 16))
    return (0.1 * pulses + 0.003 * rng.normal(size=len(time))).astype(np.float32)


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Digits of four buzzing voices to train on and of two others to develop with, as files in the corpus' layout."""
    rng, folders = np.random.default_rng(0), []
    for part, pitches in (("train", (90, 130, 180, 240)), ("dev", (110, 210))):
        folder = tmp_path_factory.mktemp(part)
        for pitch in pitches:
            for index in range(6):
                wav.write(folder / f"{index}_voice{pitch}_{index}.wav", buzz(pitch, rng.uniform(0.3, 0.9), rng), 16000)
        folders.append(folder)
    return folders


def settings(corpora, tmp_path, *overrides):
    from hydra import compose, initialize_config_module

    train_folder, dev_folder = corpora
    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        return compose(
            "train",
            [
                "experiment=speaker",
                f"runs_dir={tmp_path}",
                f"data.train=[{{layout: digits, folder: {train_folder}}}]",
                f"data.dev=[{{layout: digits, folder: {dev_folder}}}]",
                "data.batch_size=16",
                "task.model.width=24",
                "task.model.joined=32",
                "task.model.dim=16",
                "task.warmup=2",
                "threads=1",
                "progress=null",
                "trainer.accelerator=cpu",
                "trainer.precision=32-true",
                *overrides,
            ],
        )


def test_a_short_run_tells_unseen_voices_apart(corpora, tmp_path):
    path = train(settings(corpora, tmp_path, "trainer.max_steps=25", "trainer.val_check_interval=25"))
    encoder = SpeakerEncoder.load(path)
    rng = np.random.default_rng(5)
    low, high = ([encoder.embed(buzz(pitch, 0.7, rng)) for _ in range(4)] for pitch in (110, 210))
    same = min(float(a @ b) for group in (low, high) for a in group for b in group)
    assert same > max(float(a @ b) for a in low for b in high)


def test_a_resumed_run_equals_an_uninterrupted_one(corpora, tmp_path):
    whole = train(settings(corpora, tmp_path, "name=whole", "trainer.max_steps=4", "task.max_steps=4"))
    train(settings(corpora, tmp_path, "name=parts", "trainer.max_steps=2", "task.max_steps=4"))
    parts = train(settings(corpora, tmp_path, "name=parts", "trainer.max_steps=4", "task.max_steps=4"))
    one, other = checkpoint.read(whole).tensors, checkpoint.read(parts).tensors
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_the_margin_widens_the_right_angle_alone():
    torch.manual_seed(0)
    embeddings, directions = F.normalize(torch.randn(6, 8), dim=1), torch.randn(5, 8)
    targets = torch.tensor([0, 1, 2, 3, 4, 0])
    plain, wide = (margin_logits(embeddings, directions, targets, margin, 30.0) for margin in (0.0, 0.3))
    rows = torch.arange(6)
    angle = torch.acos(plain[rows, targets] / 30)
    torch.testing.assert_close(wide[rows, targets], 30 * torch.cos(angle + 0.3), atol=1e-3, rtol=0)
    others = torch.ones_like(plain, dtype=torch.bool).scatter(1, targets[:, None], False)
    assert torch.equal(plain[others], wide[others])
    # An embedding opposite to its class still gains by turning towards it.
    turning = torch.linspace(np.pi, 0, 50)
    row = torch.stack([turning.cos(), turning.sin()], dim=1)
    logits = margin_logits(row, torch.tensor([[1.0, 0.0]]), torch.zeros(50, dtype=torch.long), 0.3, 1.0)
    assert (logits.diff(dim=0) > 0).all()


def test_equal_error_rate_on_scores_of_known_overlap():
    rng = np.random.default_rng(0)
    same = np.repeat([True, False], 50_000)
    scores = rng.normal(np.where(same, 1.0, -1.0), 1.0)
    rate, threshold = equal_error_rate(scores, same)
    assert rate == pytest.approx(0.1587, abs=0.005)  # the normal tail beyond one deviation
    assert threshold == pytest.approx(0, abs=0.05)
    assert equal_error_rate(np.array([0.1, 0.9]), np.array([False, True]))[0] == 0
    assert equal_error_rate(np.array([0.9, 0.1]), np.array([False, True]))[0] == 1
    with pytest.raises(ValueError, match="pairs of two"):
        equal_error_rate(np.array([1.0]), np.array([True]))


def test_batches_are_even_over_speakers_and_the_same_again():
    rng = np.random.default_rng(0)
    sizes = {0: 200, 1: 3, 2: 30}
    clips = [
        SpeakerClip(f"{s}-{n}", s, rng.normal(s, 0.1, (40, 20)).astype(np.float16))
        for s in sizes
        for n in range(sizes[s])
    ]
    source = SpeakerBatches(clips, batch_size=60, least=15, most=70, seed=1, disturbed=False)
    batches = [source.batch(index) for index in range(10)]
    counts = torch.bincount(torch.cat([batch.speakers for batch in batches]))
    assert counts.min() > 150
    assert len({batch.mels.shape[2] for batch in batches}) > 5
    for batch in batches:
        assert batch.mels.shape[:2] == (60, 40) and 15 <= batch.mels.shape[2] <= 70
        assert torch.equal(batch.mels.mean((1, 2)).round().long(), batch.speakers)  # joined clips are one speaker's
    again = SpeakerBatches(clips, batch_size=60, least=15, most=70, seed=1, disturbed=False).batch(7)
    assert torch.equal(again.mels, batches[7].mels) and torch.equal(again.speakers, batches[7].speakers)
    with pytest.raises(ValueError, match="0 < least <= most"):
        SpeakerBatches(clips, batch_size=1, least=3, most=2, seed=0)


def test_disturbances_add_and_never_take_away():
    mel = np.random.default_rng(0).normal(-3, 2, (40, 100))
    changed = 0
    for seed in range(20):
        disturbed = disturb(mel, np.random.default_rng(seed))
        assert disturbed.shape == mel.shape and np.isfinite(disturbed).all()
        assert (disturbed >= mel - 1e-4).all()
        changed += not np.allclose(disturbed, mel, atol=1e-3)
    assert 8 <= changed < 20


def test_edge_silence_is_cut():
    mel = np.full((40, 90), -11.0)
    mel[:, 20:60] = np.random.default_rng(0).normal(-3, 0.5, (40, 40))
    assert spoken(mel).shape == (40, 40)


def test_layouts_of_configs(corpora):
    found = read_layout({"layout": "digits", "folder": corpora[0], "leave_out": ["digits-voice90"], "limit": 2})
    assert len(found.recordings) == 6 and "digits-voice90" not in {r.speaker for r in found.recordings}
    train_part, test_part = (
        read_layout({"layout": "digits", "folder": corpora[0], "part": p}) for p in ("train", "test")
    )
    assert (len(train_part.recordings), len(test_part.recordings)) == (4, 20)
    assert len(read_layout({"layout": "ljspeech", "folder": SPEECH, "limit": 5}).recordings) == 5
    with pytest.raises(ValueError, match="unknown layout 'tar'"):
        read_layout({"layout": "tar", "folder": "x"})
    with pytest.raises(ValueError, match="every speaker is left out"):
        read_layout({"layout": "ljspeech", "folder": SPEECH, "leave_out": ["speech"]})
