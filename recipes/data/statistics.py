"""What models need to know about a corpus before they train on it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.tts.levels import HIGHEST, LOWEST, Levels
from melstate.tts.lina import Lina
from melstate.tts.text import symbols
from melstate.tts.variance import frame_energy

# Nearest stresses first.
STRESSES = {"0": "21", "1": "20", "2": "10"}


def mel_statistics(clips: Sequence[Clip]) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation (at least 0.1) of each log-mel band over all frames, (n_mels,) float32 each."""
    frames = sum(clip.features.mel.shape[1] for clip in clips)
    mean = sum(clip.features.mel.sum(1, dtype=np.float64) for clip in clips) / frames
    spread = sum(np.square(clip.features.mel - mean[:, None]).sum(1) for clip in clips) / frames
    return torch.from_numpy(mean).float(), torch.from_numpy(np.sqrt(spread)).float().clamp(min=0.1)


def pitch_statistics(clips: Sequence[Clip]) -> tuple[float, float]:
    """Mean and standard deviation (at least 0.02) of log F0 over voiced frames. Raises ValueError if there are none."""
    voiced = np.concatenate([clip.features.log_f0[clip.features.voiced > 0.5] for clip in clips])
    if not len(voiced):
        raise ValueError("no voiced frame in the corpus; check the audio and the F0 range of corpus.features")
    return float(voiced.mean(dtype=np.float64)), max(0.02, float(voiced.std(dtype=np.float64)))


def energy_statistics(clips: Sequence[Clip]) -> tuple[float, float]:
    """Mean and standard deviation (at least 0.1) of melstate.tts.variance.frame_energy over all frames."""
    energy = torch.cat([frame_energy(torch.from_numpy(clip.features.mel)[None])[0] for clip in clips]).double()
    return float(energy.mean()), max(0.1, float(energy.std()))


def level_statistics(clips: Sequence[Clip], model: Lina) -> tuple[Tensor, Tensor, Tensor]:
    """What Lina.set_statistics takes: limits of the levels, and how often each is met.

    Limits are the quantiles LOWEST and HIGHEST of each channel over all frames (F0: over voiced frames); voicing's are
    0 and 1.
    Raises: ValueError: F0 is wanted and no frame is voiced.
    """
    frames = np.concatenate([clip.features.mel for clip in clips], 1)
    low, high = np.quantile(frames, (LOWEST, HIGHEST), axis=1)
    if model.contour:
        voiced = np.concatenate([clip.features.voiced for clip in clips])
        log_f0 = np.concatenate([clip.features.log_f0 for clip in clips])
        if not (voiced > 0.5).any():
            raise ValueError("no voiced frame in the corpus; check the audio and the F0 range of corpus.features")
        f0_low, f0_high = np.quantile(log_f0[voiced > 0.5], (LOWEST, HIGHEST))
        low, high = np.append(low, (f0_low, 0.0)), np.append(high, (f0_high, 1.0))
        frames = np.concatenate([frames, log_f0[None], voiced[None]])
    levels = Levels(model.channels, model.levels.levels)
    levels.set_limits(torch.from_numpy(low).float(), torch.from_numpy(high).float())
    found = levels.quantise(torch.from_numpy(frames.T).float())
    rates = torch.stack([(found == level).float().mean(0) for level in range(levels.levels)], 1)
    return levels.low, levels.high, rates


def stand_ins(clips: Sequence[Clip], least: int = 5) -> dict[int, int]:
    """Symbol ids that occur fewer than `least` times, each with the id of the nearest symbol that occurs often enough.

    A vowel is replaced by itself with another stress, "!" and "?" by ".", ";" by ","; symbols without such a relative
    stay as they are.
    """
    counts = Counter(symbol for clip in clips for symbol in clip.phones)
    relatives = {"!": (".",), "?": (".",), ";": (",", "."), ",": (";", ".")}
    relatives |= {f"{v}{s}": tuple(f"{v}{t}" for t in near) for v in symbols.VOWELS for s, near in STRESSES.items()}
    result = {}
    for symbol, near in relatives.items():
        if counts[symbols.ID[symbol]] < least:
            known = [symbols.ID[other] for other in near if counts[symbols.ID[other]] >= least]
            if known:
                result[symbols.ID[symbol]] = known[0]
    return result
