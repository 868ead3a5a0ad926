"""A recogniser of three tones: a random encoder under a fitted CTC head. Real in every part."""

import numpy as np
import pytest
import torch

from melstate.asr.ctc import ctc_loss
from melstate.asr.decoding import Decoding
from melstate.asr.encoder import FACTOR
from melstate.asr.features import SPEECH, log_mel
from melstate.asr.language_model import LanguageModel
from melstate.asr.listener import Parts
from melstate.asr.model import SpeechModel
from melstate.asr.package import Manifest
from melstate.asr.recognizer import Recognizer
from melstate.asr.speaker_encoder import SpeakerEncoder
from melstate.asr.tokens import BLANK, Tokens

RATE = 16000
HERTZ = {"a": 500.0, "b": 1500.0, "c": 3500.0}
TONE = 0.24
ENCODER = {"dim": 64, "layers": 2, "chunk": 10, "conv": 0, "channels": 16, "mixer": "short_conv"}
DECODER = {"dim": 32, "layers": 1, "heads": 2, "mixer_options": {"heads": 2, "conv": 0}}


def _speak(words, rate=RATE, pause=0.2, edge=0.3):
    """Every word is a tone; a number is so many seconds of silence."""
    parts, spoken, now = [np.zeros(int(edge * rate))], [], edge
    for word in words:
        if isinstance(word, str):
            time = np.arange(int(TONE * rate)) / rate
            parts += [0.2 * np.sin(2 * np.pi * HERTZ[word] * time), np.zeros(int(pause * rate))]
            spoken.append((word, now, now + TONE))
            now += TONE + pause
        else:
            parts.append(np.zeros(int(word * rate)))
            now += word
    parts.append(np.zeros(int(edge * rate)))
    return np.concatenate(parts).astype(np.float32), spoken


@pytest.fixture(scope="session")
def speak():
    """speak(["a", 1.5, "b"]) → samples at 16 kHz, and (word, start, end) in seconds."""
    return _speak


def fit(model, tokens, rng, rows=24):
    """The CTC head by ridge regression on the frames in which each tone sounds, then by its own loss."""
    inputs, targets, texts = [], [], []
    for row in range(rows):
        words = [x for word in rng.choice(list(HERTZ), size=8) for x in (str(word), float(rng.uniform(0, 0.8)))]
        audio, spoken = _speak(words if row % 6 else [4.0])
        noise = rng.normal(0, 10 ** rng.uniform(-5, -2), len(audio)) if row % 2 else 0.0
        mel, _ = log_mel(torch.from_numpy((audio + noise).astype(np.float32))[None], SPEECH)
        with torch.no_grad():
            memory = model.encoder(mel)[0].values[0]
        centre = (torch.arange(len(memory)) + 0.5) * FACTOR * SPEECH.hop / RATE
        label = torch.zeros(len(memory), len(tokens))
        label[:, BLANK] = 1.0
        for word, start, end in spoken:
            inside = (centre > start) & (centre < end)
            label[inside] = torch.nn.functional.one_hot(torch.tensor(tokens.encode(word)[0]), len(tokens)).float()
        inputs.append(memory)
        targets.append(label)
        texts.append(torch.tensor([tokens.encode(word)[0] for word, _, _ in spoken], dtype=torch.long))
    x, y = torch.cat(inputs), torch.cat(targets)
    x = torch.cat([x, torch.ones(len(x), 1)], 1)
    weights = torch.linalg.solve(x.T @ x + 0.1 * torch.eye(x.shape[1]), x.T @ y)
    with torch.no_grad():
        model.ctc.weight.copy_(20 * weights[:-1].T)
        model.ctc.bias.copy_(20 * weights[-1])
    pad = torch.nn.utils.rnn.pad_sequence
    memory, text = pad(inputs, batch_first=True), pad(texts, batch_first=True)
    frames, lengths = (torch.tensor([len(x) for x in group]) for group in (inputs, texts))
    optimizer = torch.optim.Adam(model.ctc.parameters(), 0.05)
    for _ in range(100):
        optimizer.zero_grad()
        ctc_loss(model.token_log_probs(memory), frames, text, lengths).backward()
        optimizer.step()


@pytest.fixture(scope="session")
def recognizer():
    torch.manual_seed(0)
    tokens = Tokens.train(["a b c", "b c a", "c a b"] * 9, 32)
    assert all(len(tokens.encode(word)) == 1 for word in HERTZ)
    model = SpeechModel(len(tokens), encoder=ENCODER, decoder=DECODER).eval()
    model.set_statistics(torch.full((80,), -8.0), torch.full((80,), 3.0))
    fit(model, tokens, np.random.default_rng(0))
    language = LanguageModel.train(["a b c", "b a", "c c a", "b b"])
    voices = SpeakerEncoder(dim=8, width=8, dilations=(1,), joined=8).eval()
    manifest = Manifest("tones", "en", "CC0-1.0", "Three tones.", {})
    return Recognizer(Parts(model, tokens, language, voices), manifest, Decoding(language=0.2, attention=0.0, edge=0.0))
