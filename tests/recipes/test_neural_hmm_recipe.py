"""The neural HMM's recipe as users run it, on six clips."""

import numpy as np
import torch

from melstate.recipes.align import align_run
from melstate.recipes.models import read_acoustic
from melstate.recipes.train import train


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
    with np.load(align_run(path.parent)) as durations:
        assert len(durations) == 6 and all(row[:-1].min() >= 4 and row[-1] >= 3 for row in durations.values())


def test_overflow_starts_from_fitted_normalisations_and_speaks(compose, tmp_path):
    small = ("task.model.encoder_blocks=1", "task.model.output=32", "task.model.context=32", "task.model.dim=32")
    flow = ("task.model.flow_steps=2", "task.model.flow_hidden=16")
    options = ("task.warmup=1", "ema=0", "trainer.max_steps=2")
    model = read_acoustic(train(compose("overflow", *small, *flow, *options)))
    assert float(model.flow.layers[0].bias.abs().max()) > 0.01
    frames = list(model.stream([1, 9, 12, 2], generator=torch.Generator().manual_seed(0)))
    assert torch.cat([part.symbol for part in frames]).unique_consecutive().tolist() == [0, 1, 2, 3]
