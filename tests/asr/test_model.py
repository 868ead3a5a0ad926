"""Encoder and decoder stream as they run whole; the joint model learns."""

import pytest
import torch

from melstate.asr.ctc import best_path
from melstate.asr.model import SpeechBatch, SpeechModel
from melstate.vocoders import checkpoint

ENCODER = {"dim": 32, "layers": 3, "chunk": 4, "conv": 3, "channels": 4, "dropout": 0.0, "tap": 2}
DECODER = {"dim": 32, "layers": 2, "heads": 2, "dropout": 0.0}


@pytest.fixture
def model():
    torch.manual_seed(3)
    model = SpeechModel(12, phones=5, encoder=ENCODER, decoder=DECODER)
    model.set_statistics(torch.randn(80), torch.rand(80) + 0.5)
    return model.eval()


@pytest.mark.parametrize("cuts", [[70], [16, 16, 38], [1] * 40 + [30], [0, 33, 0, 37]])
@pytest.mark.parametrize("direction", ["chunk", "forward"])
def test_streamed_memory_equals_the_whole(cuts, direction):
    torch.manual_seed(0)
    encoder = SpeechModel(12, encoder={**ENCODER, "direction": direction}).eval().encoder
    mel = torch.randn(2, sum(cuts), 80)
    whole, _ = encoder(mel)
    assert whole.values.shape == (2, 18, 32)
    state, parts = None, []
    for number, piece in enumerate(mel.split(cuts, dim=1)):
        memory, state = encoder(piece, state, final=number == len(cuts) - 1)
        assert number == len(cuts) - 1 or memory.values.shape[1] % 4 == 0
        parts.append(memory)
    for name in ("values", "tapped"):
        torch.testing.assert_close(
            torch.cat([getattr(p, name) for p in parts], 1), getattr(whole, name), atol=1e-4, rtol=1e-4
        )


def test_padding_changes_nothing(model):
    mel = torch.randn(2, 61, 80)
    padded = mel.clone()
    padded[1, 37:] = float("nan")
    memory, _ = model.encoder(padded, lengths=torch.tensor([61, 37]))
    alone, _ = model.encoder(mel[1:, :37])
    assert memory.lengths.tolist() == [16, 10]
    torch.testing.assert_close(memory.values[1:, :10], alone.values, atol=1e-5, rtol=1e-5)


def test_nothing_sees_beyond_its_chunk(model):
    mel = torch.randn(1, 64, 80)
    changed = mel.clone()
    changed[:, 32:] = 0
    before, after = (model.encoder(x)[0].values for x in (mel, changed))
    torch.testing.assert_close(before[:, :8], after[:, :8])
    assert (before[:, 8:] - after[:, 8:]).abs().max() > 1e-3


def test_an_encoder_of_both_directions_refuses_to_stream():
    encoder = SpeechModel(12, encoder={**ENCODER, "direction": "both"}).encoder
    assert encoder(torch.randn(1, 9, 80))[0].values.shape == (1, 3, 32)
    with pytest.raises(ValueError, match="whole recording"):
        encoder(torch.randn(1, 9, 80), final=False)


def test_decoding_token_by_token_equals_the_whole(model):
    window = model.decoder.window(torch.randn(2, 9, 32))
    tokens = torch.randint(12, (2, 7))
    whole, focus, _ = model.decoder(tokens, window)
    state, logits, places = None, [], []
    for step in range(7):
        y, place, state = model.decoder(tokens[:, step : step + 1], window, state)
        logits.append(y)
        places.append(place)
    torch.testing.assert_close(torch.cat(logits, 1), whole, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat(places, 1), focus, atol=1e-5, rtol=1e-5)
    assert 0 <= focus.min() and focus.max() < 1


def test_the_decoder_ignores_padded_memory(model):
    memory = torch.randn(2, 9, 32)
    padded = memory.clone()
    padded[1, 5:] = 1e3
    tokens = torch.randint(12, (2, 4))
    y, _, _ = model.decoder(tokens, model.decoder.window(padded, torch.tensor([9, 5])))
    # positions count from the window's start, so a shorter window is the same window
    alone, _, _ = model.decoder(tokens[1:], model.decoder.window(memory[1:, :5]))
    torch.testing.assert_close(y[1:], alone, atol=1e-5, rtol=1e-5)


def batch_of(texts, frames=48):
    """Rows whose tokens are bursts in bands of their own, a burst every eight frames."""
    mels = torch.full((len(texts), frames, 80), -8.0)
    for row, tokens in enumerate(texts):
        for place, token in enumerate(tokens):
            mels[row, 4 + 8 * place : 8 + 8 * place, 8 * (token - 6) : 8 * (token - 6) + 8] = 0.0
    lengths = torch.tensor([len(t) for t in texts])
    padded = torch.zeros(len(texts), int(lengths.max()), dtype=torch.long)
    spoken = torch.zeros(len(texts), int(lengths.max()) + 2, dtype=torch.long)
    for row, tokens in enumerate(texts):
        padded[row, : len(tokens)] = torch.tensor(tokens, dtype=torch.long)
        ending = [2, 1] if tokens else [1]
        spoken[row, : len(tokens) + len(ending)] = torch.tensor([*tokens, *ending])
    ends = torch.tensor([len(t) + (2 if t else 1) for t in texts])
    frames_of = torch.full((len(texts),), frames)
    return SpeechBatch(mels, frames_of, padded, lengths, padded - 5, lengths, spoken, ends)


def test_the_joint_model_learns_and_hears_silence(model):
    torch.manual_seed(0)
    model = SpeechModel(12, phones=8, encoder=ENCODER, decoder=DECODER)
    model.set_statistics(torch.full((80,), -8.0), torch.full((80,), 4.0))
    batch = batch_of([[6, 7, 8], [9, 6], [7, 7, 9, 8], []])
    optimizer = torch.optim.Adam(model.parameters(), 5e-3)
    first = {name: float(loss.detach()) for name, loss in model.losses(batch).items()}
    assert set(first) == {"ctc", "phones", "attention"}
    for _ in range(150):
        losses = model.losses(batch)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        optimizer.step()
    assert all(float(losses[name].detach()) < 0.5 * first[name] for name in first if name != "attention")
    memory, _ = model.encoder(batch.mels, lengths=batch.mel_lengths)
    heard = [best_path(row) for row in model.token_log_probs(memory.values)]
    assert heard == [[6, 7, 8], [9, 6], [7, 7, 9, 8], []]
    logits, _, _ = model.decoder(
        torch.cat([torch.ones(4, 1, dtype=torch.long), batch.spoken[:, :-1]], 1), model.decoder.window(memory.values)
    )
    for row, length in enumerate(batch.spoken_lengths.tolist()):
        assert logits[row, :length].argmax(-1).tolist() == batch.spoken[row, :length].tolist()


def test_a_checkpoint_rebuilds_the_model(model, tmp_path):
    checkpoint.save(tmp_path / "m.safetensors", model)
    again = checkpoint.build(
        checkpoint.read(tmp_path / "m.safetensors"), {"recognizer": "melstate.asr.model:SpeechModel"}
    )
    mel = torch.randn(1, 40, 80)
    assert torch.equal(again.encoder(mel)[0].values, model.encoder(mel)[0].values)


def test_losses_are_finite_for_rows_too_short_for_their_text(model):
    batch = batch_of([[6, 6, 6, 6], []], frames=40)._replace(mel_lengths=torch.tensor([3, 0]))
    losses = model.losses(batch, misread=0.5)
    assert all(torch.isfinite(loss) for loss in losses.values())
