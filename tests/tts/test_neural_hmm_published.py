"""Published checkpoints: our model of their weights has their likelihood, computed as they compute it."""

import pytest
import torch

from melstate.recipes.bench.neural_hmm import Loop
from melstate.tts.acoustic import Batch
from melstate.tts.neural_hmm_published import from_published, read_neural_hmm


def published(**options):
    torch.manual_seed(0)
    sizes = {"symbols": 20, "bands": 6, "width": 8, "prenet": 5, "cells": 10} | options
    model = Loop(**sizes).eval()
    for _, norm in model.encoder.convolutions:
        norm.running_mean.normal_()
        norm.running_var.uniform_(0.5, 2.0)
    return model


def save(path, tensors):
    torch.save({"state_dict": {f"model.{name}": x for name, x in tensors.items()} | {"other.x": torch.ones(1)}}, path)
    return path


@pytest.mark.parametrize("states", [1, 2, 4])
def test_the_likelihood_is_the_published_one(states, tmp_path):
    theirs = published(states=states)
    ours = read_neural_hmm(save(tmp_path / "x.ckpt", theirs.state_dict()), mel_mean=-5.0, mel_std=2.0)
    frames, symbols = torch.tensor([30, 21]), torch.tensor([5, 4])
    phones = torch.randint(0, 20, (2, 5)) * (torch.arange(5) < symbols[:, None])
    mels = torch.randn(2, 6, 30) * 2 - 5
    zeros = torch.zeros(2, 30)
    batch = Batch(phones, symbols, mels, frames, zeros, zeros, None, symbols, ("a", "b"))
    wanted = theirs.log_likelihood(phones, symbols, (mels + 5) / 2, frames)
    found = ours.log_likelihood(batch, dropout=False)
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-3)
    # One gradient reaches all that the two models share: the same first layer's bias moves both.
    theirs.zero_grad()
    wanted.sum().backward()
    found.sum().backward()
    mine, right = ours.out.weight.grad, theirs.hmm.decoder.decoder_network["layers"][1].weight.grad
    assert float((mine - right).norm() / right.norm()) < 1e-4
    symbols_spoken = torch.cat([part.symbol for part in ours.stream([3, 4, 5])])
    assert symbols_spoken.unique_consecutive().tolist() == [0, 1, 2]


def test_damaged_or_foreign_checkpoints_are_refused_by_tensor(tmp_path):
    tensors = published().state_dict()
    given = {"mel_mean": 0.0, "mel_std": 1.0}
    with pytest.raises(ValueError, match=r"'hmm\.go_tokens' is missing"):
        from_published({name: x for name, x in tensors.items() if name != "hmm.go_tokens"}, **given)
    with pytest.raises(ValueError, match=r"'decoder\.flows\.0\.logs' has no place"):
        from_published(tensors | {"decoder.flows.0.logs": torch.zeros(1)}, **given)
    wrong = tensors | {"encoder.lstm.bias_ih_l0": torch.zeros(3)}
    with pytest.raises(ValueError, match=r"x\.ckpt: tensor 'encoder\.lstm\.bias_ih_l0' has shape \(3,\), expected"):
        read_neural_hmm(save(tmp_path / "x.ckpt", wrong), **given)
    (tmp_path / "y.ckpt").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"y\.ckpt: not a Neural-HMM checkpoint"):
        read_neural_hmm(tmp_path / "y.ckpt", **given)
    with pytest.raises(FileNotFoundError):
        read_neural_hmm(tmp_path / "z.ckpt", **given)
