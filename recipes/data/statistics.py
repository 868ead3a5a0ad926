"""What normalisation needs to know about a corpus."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from melstate.recipes.data.batches import Clip
from melstate.tts.variance import frame_energy


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
