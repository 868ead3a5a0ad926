"""A stretch of speech → one unit vector that says who speaks, whatever is said.

Dilated convolutions over log-mels, then mean and deviation over time, then a linear map: an x-vector network (Snyder et
al., ICASSP 2018) with residual blocks, joined over depth as in ECAPA-TDNN (Desplanques et al. 2020, arXiv 2005.07143).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.vocoders import checkpoint
from melstate.vocoders.mel import MelConfig, log_mel

# Bands end under 4 kHz: a telephone's bandwidth must not look like a person.
MEL = MelConfig(sample_rate=16000, n_fft=512, hop=160, n_mels=40, fmin=60.0, fmax=3800.0, floor=1e-5)
LEAST_SECONDS = 0.4  # shorter audio is repeated up to this


class _Residual(nn.Module):
    """x + relu(norm(dilated convolution of x))."""

    def __init__(self, width: int, kernel: int, dilation: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, kernel, dilation=dilation, padding=dilation * (kernel // 2))
        self.norm = nn.BatchNorm1d(width)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(F.relu(self.conv(x)))


class SpeakerEncoder(nn.Module):
    """(B, n_mels, T) log-mels → (B, dim) unit vectors; the cosine between two says whether one person spoke.

    Args:
        dim: of the embedding.
        width: channels.
        dilations: one residual block each, in frames of 20 ms.
        kernel: of the residual blocks, odd.
        joined: channels that the blocks' outputs are joined into before pooling.
        mel: the mel contract, as a mapping; `MEL` by default.
    """

    kind = "speaker_encoder"

    def __init__(
        self,
        dim: int = 128,
        width: int = 160,
        dilations: Sequence[int] = (1, 2, 3, 4),
        kernel: int = 3,
        joined: int = 320,
        mel: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.mel = MEL if mel is None else MelConfig.from_dict(mel)
        self.config: dict[str, Any] = {
            "dim": dim,
            "width": width,
            "dilations": list(dilations),
            "kernel": kernel,
            "joined": joined,
            "mel": self.mel.to_dict(),
        }
        self.dim = dim
        self.first = nn.Conv1d(self.mel.n_mels, width, 5, stride=2, padding=2)
        self.norm = nn.BatchNorm1d(width)
        self.blocks = nn.ModuleList(_Residual(width, kernel, dilation) for dilation in dilations)
        self.join = nn.Conv1d(width * len(dilations), joined, 1)
        self.pooled_norm = nn.BatchNorm1d(2 * joined)
        self.out = nn.Linear(2 * joined, dim)

    def forward(self, mel: Tensor) -> Tensor:
        """Each row's bands are centred over its frames first, which takes away level and colour of the channel."""
        x = mel - mel.mean(dim=2, keepdim=True)
        x = self.norm(F.relu(self.first(x)))
        outputs = []
        for block in self.blocks:
            x = block(x)
            outputs.append(x)
        x = F.relu(self.join(torch.cat(outputs, dim=1))).float()
        pooled = torch.cat([x.mean(dim=2), (x.var(dim=2, unbiased=False) + 1e-5).sqrt()], dim=1)
        return F.normalize(self.out(self.pooled_norm(pooled)), dim=1)

    @torch.inference_mode()
    def embed(self, audio: Tensor | np.ndarray) -> Tensor:
        """(samples,) at `mel.sample_rate` → (dim,), of unit length.

        Raises: ValueError: no samples, more than one channel, or samples that are not finite.
        """
        audio = torch.as_tensor(audio, dtype=torch.float32, device=self.out.weight.device)
        if audio.ndim != 1 or not len(audio):
            raise ValueError(
                f"speaker encoder: audio of shape {tuple(audio.shape)}, expected (samples,) with at least one"
            )
        if not torch.isfinite(audio).all():
            raise ValueError("speaker encoder: audio holds NaN or infinite samples")
        least = round(LEAST_SECONDS * self.mel.sample_rate)
        if len(audio) < least:
            audio = audio.repeat(-(-least // len(audio)))
        return self(log_mel(audio, self.mel)[None])[0]

    @classmethod
    def load(cls, path: str | Path) -> SpeakerEncoder:
        """Ready to embed, from a .safetensors checkpoint. Raises ValueError, FileNotFoundError as checkpoint.read."""
        model = checkpoint.build(checkpoint.read(path), {cls.kind: f"{cls.__module__}:{cls.__name__}"})
        assert isinstance(model, cls)
        return model
