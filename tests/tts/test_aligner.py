"""The aligner: its prior and loss against their definitions, padding, and that it learns."""

import math

import pytest
import torch

from melstate.tts.acoustic import Batch
from melstate.tts.aligner import BLANK_LOGIT, FORBIDDEN, Aligner, beta_binomial_prior, forward_sum


def make_batch(phones, mels, ids=None):
    size, widest, longest = len(phones), max(map(len, phones)), max(m.shape[1] for m in mels)
    padded = torch.zeros(size, widest, dtype=torch.long)
    mel = torch.zeros(size, mels[0].shape[0], longest)
    for row, (p, m) in enumerate(zip(phones, mels, strict=True)):
        padded[row, : len(p)] = torch.tensor(p)
        mel[row, :, : m.shape[1]] = m
    frames = torch.tensor([m.shape[1] for m in mels])
    empty = torch.zeros(size, longest)
    names = ids or tuple(f"clip{i}" for i in range(size))
    lengths = torch.tensor([len(p) for p in phones])
    return Batch(padded, lengths, mel, frames, empty, empty, None, torch.zeros(size).long(), names)


def spoken(phones, durations, seed, generator):
    """A mel in which each symbol has its own random spectrum, with noise."""
    spectra = torch.randn(20, 80, generator=torch.Generator().manual_seed(seed)) * 2 - 5
    clean = spectra[torch.repeat_interleave(torch.tensor(phones), torch.tensor(durations))].T
    return clean + 0.3 * torch.randn(clean.shape, generator=generator)


def test_prior_is_the_beta_binomial_distribution():
    prior = beta_binomial_prior(torch.tensor([7, 4]), torch.tensor([3, 4]), 8, 5).exp()

    def beta(a, b):
        return math.gamma(a) * math.gamma(b) / math.gamma(a + b)

    for row, (T, N) in enumerate([(7, 3), (4, 4)]):
        for t in range(1, T + 1):
            for n in range(N):
                expected = math.comb(N - 1, n) * beta(n + t, N - 1 - n + T - t + 1) / beta(t, T - t + 1)
                assert prior[row, t - 1, n].item() == pytest.approx(expected, rel=1e-5)
    assert prior[0, :7, :3].sum(1).tolist() == pytest.approx([1.0] * 7, rel=1e-5)


def test_forward_sum_adds_up_every_path():
    # Two symbols, three frames: every CTC path over {blank, 1, 2} that reads 1, 2.
    scores = torch.randn(1, 3, 2, generator=torch.Generator().manual_seed(0))
    logits = torch.cat([torch.full((3, 1), BLANK_LOGIT), scores[0]], 1).log_softmax(1)
    paths = [(0, 1, 2), (1, 0, 2), (1, 2, 0), (1, 1, 2), (1, 2, 2)]
    total = torch.stack([logits[torch.arange(3), list(path)].sum() for path in paths]).logsumexp(0)
    padded = torch.full((1, 5, 4), FORBIDDEN)
    padded[:, :3, :2] = scores
    value = forward_sum(padded, torch.tensor([3]), torch.tensor([2]))
    assert value.item() == pytest.approx(-total.item() / 2, rel=1e-5)


def test_padding_changes_nothing():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(1)
    model = Aligner(symbols=20)
    phones = [[1, 5, 6, 2], [1, 7, 8, 9, 10, 11, 2]]
    mels = [spoken(p, [3] * len(p), 0, generator) for p in phones]
    both = make_batch(phones, mels)
    alone = [make_batch([p], [m]) for p, m in zip(phones, mels, strict=True)]
    together = model.durations(both)
    for row, single in enumerate(alone):
        count = len(phones[row])
        assert torch.equal(together[row, :count], model.durations(single)[0])
        frames = mels[row].shape[1]
        torch.testing.assert_close(
            model.align(both).log_scores[row, :frames, :count],
            model.align(single).log_scores[0],
            atol=1e-4,
            rtol=1e-5,
        )
    means = {name: torch.stack([model.losses(s)[name] for s in alone]) for name in ("forward_sum", "binarisation")}
    losses = model.losses(both)
    torch.testing.assert_close(losses["forward_sum"], means["forward_sum"].mean())
    weights = both.mel_lengths / both.mel_lengths.sum()
    torch.testing.assert_close(losses["binarisation"], (means["binarisation"] * weights).sum())


def test_it_learns_who_speaks_when():
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(2)
    model = Aligner(symbols=20, dim=32)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)

    def clip(count):
        phones = [1, *(torch.randperm(17, generator=generator)[:count] + 3).tolist(), 2]  # repeats would be ambiguous
        durations = torch.randint(1, 9, (count + 2,), generator=generator).tolist()
        return phones, durations, spoken(phones, durations, 0, generator)

    for step in range(60):
        clips = [clip(8) for _ in range(8)]
        losses = model.losses(make_batch([c[0] for c in clips], [c[2] for c in clips]))
        total = losses["forward_sum"] + (0.3 * losses["binarisation"] if step > 20 else 0)
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
    clips = [clip(12) for _ in range(8)]
    found = model.durations(make_batch([c[0] for c in clips], [c[2] for c in clips]))
    true = torch.tensor([c[1] for c in clips])
    assert found.sum(1).tolist() == true.sum(1).tolist() and found.min() >= 1
    assert (found - true).abs().float().mean() < 0.5


def test_unalignable_and_unknown_input_is_refused_by_name():
    model = Aligner(symbols=20)
    batch = make_batch([[1, 2], [1, 5, 6, 2]], [torch.zeros(80, 9), torch.zeros(80, 3)], ("good", "too_short"))
    with pytest.raises(ValueError, match="'too_short': 3 frames cannot give each of 4 symbols"):
        model.durations(batch)
    with pytest.raises(ValueError, match="'strange': symbol ids up to 20"):
        model.losses(make_batch([[1, 20]], [torch.zeros(80, 9)], ("strange",)))
    with pytest.raises(ValueError, match="deviations positive; smallest is 0"):
        model.set_statistics(torch.zeros(80), torch.zeros(80))


def test_the_config_rebuilds_the_model():
    model = Aligner(symbols=20, dim=8, temperature=0.1)
    model.set_statistics(torch.arange(80.0), torch.ones(80))
    again = Aligner(**model.config)
    assert again.config == model.config
    again.load_state_dict(model.state_dict())
    generator = torch.Generator().manual_seed(0)
    batch = make_batch([[1, 5, 2]], [torch.randn(80, 9, generator=generator)])
    torch.testing.assert_close(again.align(batch).log_scores, model.align(batch).log_scores)
