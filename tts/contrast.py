"""Contrast: an acoustic model's mels are means over what might have been said, flatter than speech; this undoes it.

A model trained to be near on average leaves out what it cannot know, and the spectrum's fine shape fades. Its mel
cepstrum is spread about its mean until it varies as the recordings' does: an affine map of each frame.

Source: Toda & Tokuda 2007, "A speech parameter generation algorithm considering global variance", in the linear form of
Silén et al. 2012, "Ways to implement global variance in statistical speech synthesis".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SLOPE = 2.0  # a nat: how soon frames count as speech above `quiet`


@dataclass(frozen=True)
class Contrast:
    """What to do to the mel cepstrum (orthonormal DCT-II over bands) of an acoustic model's frames.

    Attributes:
        gains: of coefficients 1, 2, …; the others stay as they are.
        means: of the same coefficients, about which they are spread.
        quiet: mean log-mel of a frame, about which it counts half; much below, silence stays as it is.
    """

    gains: tuple[float, ...]
    means: tuple[float, ...]
    quiet: float

    def __post_init__(self) -> None:
        if len(self.gains) != len(self.means) or not self.gains:
            raise ValueError(
                f"contrast: {len(self.gains)} gains and {len(self.means)} means; need as many, at least one"
            )
        if not all(math.isfinite(value) for value in (*self.gains, *self.means, self.quiet)):
            raise ValueError("contrast: gains, means and quiet must be finite")
        if not all(0 <= gain <= 10 for gain in self.gains):
            raise ValueError(f"contrast: gains must be in 0..10, got {min(self.gains):g}..{max(self.gains):g}")

    def apply(self, mel: Tensor, floor: float) -> Tensor:
        """(n_mels, t) log-mel → the same with more contrast, no band below log(floor)."""
        import torch

        if mel.shape[0] <= len(self.gains):
            raise ValueError(f"contrast: {len(self.gains)} coefficients of {mel.shape[0]} bands; need fewer than bands")
        matrix, offset = _affine(self, mel.shape[0])
        # In double precision, so that how many frames come at once does not show in the result.
        wide = mel.double()
        change = matrix.to(wide.device) @ wide + offset.to(wide.device)
        speech = torch.sigmoid(SLOPE * (wide.mean(0) - self.quiet))
        return (wide + speech * change).clamp(min=math.log(floor)).to(mel.dtype)


@lru_cache(maxsize=8)
def _affine(contrast: Contrast, bands: int) -> tuple[Tensor, Tensor]:
    """(bands, bands) and (bands, 1): what is added to a frame is matrix @ frame + offset."""
    import torch

    rows = cepstral_rows(bands)[1 : len(contrast.gains) + 1]
    more = torch.tensor(contrast.gains, dtype=rows.dtype)[:, None] - 1
    return rows.T @ (more * rows), -rows.T @ (more * torch.tensor(contrast.means, dtype=rows.dtype)[:, None])


def cepstral_rows(bands: int) -> Tensor:
    """The orthonormal DCT-II as a float64 matrix: rows @ log_mel is the mel cepstrum."""
    import torch

    order, band = torch.arange(bands, dtype=torch.float64)[:, None], torch.arange(bands, dtype=torch.float64)
    rows = torch.cos(math.pi * order * (band + 0.5) / bands) * math.sqrt(2 / bands)
    rows[0] /= math.sqrt(2)
    return rows
