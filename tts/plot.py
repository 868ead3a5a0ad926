"""A picture of speech: waveform, mel and phones on one time axis."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from melstate.tts.audio import Span
from melstate.vocoders.mel import MelConfig, log_mel

INCHES_PER_SECOND = 2.5
LONGEST = 120.0  # inches; longer speech is squeezed


def speech(
    path: str | Path, samples: np.ndarray, mel: MelConfig, words: Sequence[Span], phones: Sequence[Span]
) -> None:
    """Draw to a .png, .svg or .pdf file.

    Args:
        samples: (n,) float at mel.sample_rate.
        mel: the spectrogram to show.
        words, phones: spans in seconds; phones are drawn under the mel, words under the waveform.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    seconds = len(samples) / mel.sample_rate
    figure = Figure(figsize=(float(np.clip(INCHES_PER_SECOND * seconds, 6.0, LONGEST)), 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    wave, spectrum = figure.subplots(2, 1, sharex=True, height_ratios=(1, 2))
    wave.plot(np.arange(len(samples)) / mel.sample_rate, samples, linewidth=0.4)
    wave.set(ylim=(-1, 1), ylabel="amplitude", xlim=(0, seconds))
    padded = torch.from_numpy(np.pad(samples, (0, max(0, mel.n_fft - len(samples)))))
    frames = log_mel(padded, mel)
    spectrum.imshow(
        frames.numpy(),
        origin="lower",
        aspect="auto",
        interpolation="nearest",
        extent=(0, frames.shape[1] * mel.hop / mel.sample_rate, 0, mel.n_mels),
    )
    spectrum.set(ylabel="mel band", xlabel="seconds", xlim=(0, seconds))
    for span in phones:
        spectrum.axvline(span.start, color="white", linewidth=0.4, alpha=0.6)
        middle = (span.start + span.end) / 2
        spectrum.text(middle, mel.n_mels * 0.97, span.text, color="white", fontsize=7, ha="center", va="top")
    for number, span in enumerate(words):
        wave.axvspan(span.start, span.end, alpha=0.08 + 0.1 * (number % 2))
        wave.text((span.start + span.end) / 2, 0.97, span.text, fontsize=8, ha="center", va="top")
    part = Path(path).with_name(f".{Path(path).name}.part")
    try:
        figure.savefig(part, format=Path(path).suffix[1:].lower(), dpi=100)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
