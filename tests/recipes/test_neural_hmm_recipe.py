"""The neural HMM's recipe as users run it, on six clips."""

import json
from pathlib import Path

import numpy as np
import torch

from melstate.recipes import align_recording
from melstate.recipes.align import align_run
from melstate.recipes.models import read_acoustic
from melstate.recipes.train import train

SPEECH = Path(__file__).parents[1] / "speech"


def test_it_trains_and_its_export_speaks_and_aligns(compose, tmp_path):
    small = ("task.model.encoder_blocks=1", "task.model.output=32", "task.model.context=32", "task.model.dim=32")
    options = ("task.warmup=1", "ema=0.9", "trainer.max_steps=2", "trainer.val_check_interval=2")
    path = train(compose("neural_hmm", *small, *options))
    model = read_acoustic(path)
    assert model.config["states"] * model.config["reduction"] == 4
    # The corpus's statistics travel with the weights.
    assert float((model.mel_mean + 5).abs().max()) > 0.1 and float((model.prosody_mean[0] - 5).abs()) > 1e-3
    frames = list(model.stream([1, 9, 12, 2], generator=torch.Generator().manual_seed(0)))
    assert torch.cat([part.symbol for part in frames]).unique_consecutive().tolist() == [0, 1, 2, 3]
    # Its alignments are durations for FastSpeech to learn from: two frames a group, two groups a symbol at least.
    aligned = align_run(path.parent)
    with np.load(aligned) as durations:
        assert len(durations) == 6 and all(row[:-1].min() >= 4 and row[-1] >= 3 for row in durations.values())
    tiny = (
        "task.model.encoder_blocks=1",
        "task.model.local_blocks=1",
        "task.model.decoder_blocks=1",
        "task.model.dim=32",
    )
    learned = read_acoustic(train(compose("fastspeech", *tiny, *options, f"data.durations={aligned}")))
    assert next(learned.stream([1, 9, 12, 2])).mel.isfinite().all()
    # And it finds the words of a recording.
    clip, text = SPEECH / "wavs" / "arctic_a0098_1592746262.flac", "Shall I carry you."
    found = [tmp_path / f"{method}.json" for method in ("viterbi", "posterior")]
    for target in found:
        arguments = [str(clip), text, "--aligner", str(path.parent), "--method", target.stem, "-o", str(target)]
        assert align_recording.main(arguments) == 0
        spans = json.loads(target.read_text())
        assert [word["text"] for word in spans["words"]] == ["Shall", "I", "carry", "you"]
        assert spans["words"][0]["start"] < spans["words"][-1]["end"] <= spans["seconds"]


def test_overflow_starts_from_fitted_normalisations_and_speaks(compose, tmp_path):
    small = ("task.model.encoder_blocks=1", "task.model.output=32", "task.model.context=32", "task.model.dim=32")
    flow = ("task.model.flow_steps=2", "task.model.flow_hidden=16")
    options = ("task.warmup=1", "ema=0", "trainer.max_steps=2")
    model = read_acoustic(train(compose("overflow", *small, *flow, *options)))
    assert float(model.flow.layers[0].bias.abs().max()) > 0.01
    frames = list(model.stream([1, 9, 12, 2], generator=torch.Generator().manual_seed(0)))
    assert torch.cat([part.symbol for part in frames]).unique_consecutive().tolist() == [0, 1, 2, 3]
