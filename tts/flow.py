"""OverFlow: a neural HMM over the latents of an invertible network, so that its frames need not be Gaussian.

    z = f(x),   log p(x) = log p_HMM(z) + log |det df/dx|

f is the decoder of Glow-TTS: two frames are put side by side, then steps of activation normalisation, an invertible
mixing of channels and an affine coupling; every step can be undone, so synthesis decodes latents and inverts f.

Source: Mehta et al. 2022 (OverFlow, arXiv:2211.06892); Kim et al. 2020 (Glow-TTS, arXiv:2005.11129), section 3.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SQUEEZE = 2  # frames side by side
GROUP = 4  # channels that one mixing matrix mixes


class ActNorm(nn.Module):
    """y = e^s x + b for each channel; (B, C, T)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.zeros(1, channels, 1))
        self.bias = nn.Parameter(torch.zeros(1, channels, 1))

    @torch.no_grad()
    def fit(self, x: Tensor, inside: Tensor) -> None:
        """Set it so that the real frames of x come out with mean 0 and deviation 1."""
        count = inside.sum()
        mean = (x * inside).sum((0, 2), keepdim=True) / count
        spread = ((x - mean).square() * inside).sum((0, 2), keepdim=True) / count
        self.log_scale.copy_(-0.5 * spread.clamp(min=1e-6).log())
        self.bias.copy_(-mean * self.log_scale.exp())

    def forward(self, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """y and the log-determinant (B,)."""
        return (x * self.log_scale.exp() + self.bias) * inside, self.log_scale.sum() * inside.sum((1, 2))

    def inverse(self, y: Tensor, inside: Tensor) -> Tensor:
        return (y - self.bias) * (-self.log_scale).exp() * inside


class Mixing(nn.Module):
    """One invertible 4 × 4 matrix, applied to groups of channels of which half come from either half of all."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.linalg.qr(torch.randn(GROUP, GROUP))[0]
        # A rotation: its determinant is 1, not −1, and stays positive.
        weight[:, 0] *= torch.det(weight).sign()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """y and the log-determinant (B,)."""
        logdet = torch.linalg.slogdet(self.weight)[1]
        return self._mix(x, self.weight), logdet * (x.shape[1] // GROUP) * inside.sum((1, 2))

    def inverse(self, y: Tensor, inside: Tensor) -> Tensor:
        return self._mix(y, torch.linalg.inv(self.weight))

    def _mix(self, x: Tensor, weight: Tensor) -> Tensor:
        batch, channels, time = x.shape
        grouped = x.view(batch, 2, channels // GROUP, GROUP // 2, time).transpose(2, 3).reshape(batch, GROUP, -1)
        mixed = (weight @ grouped).view(batch, 2, GROUP // 2, channels // GROUP, time)
        return mixed.transpose(2, 3).reshape(batch, channels, time)


class Coupling(nn.Module):
    """The second half of the channels scaled and shifted as a WaveNet of the first half says; the identity at first."""

    def __init__(self, channels: int, hidden: int, layers: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.start = nn.Conv1d(channels // 2, hidden, 1)
        self.inner = nn.ModuleList(nn.Conv1d(hidden, 2 * hidden, kernel, padding=kernel // 2) for _ in range(layers))
        self.outer = nn.ModuleList(
            nn.Conv1d(hidden, (2 if layer + 1 < layers else 1) * hidden, 1) for layer in range(layers)
        )
        self.end = nn.Conv1d(hidden, channels, 1)
        nn.init.zeros_(self.end.weight)
        nn.init.zeros_(self.end.bias)  # type: ignore[arg-type]
        self.dropout = dropout

    def _terms(self, half: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        x = self.start(half) * inside
        total = torch.zeros_like(x)
        for inner, outer in zip(self.inner, self.outer, strict=True):
            a, b = inner(x).chunk(2, 1)
            y = outer(F.dropout(torch.tanh(a) * torch.sigmoid(b), self.dropout, self.training))
            if y.shape[1] == x.shape[1]:
                total = total + y
            else:
                residual, skip = y.chunk(2, 1)
                x, total = (x + residual) * inside, total + skip
        shift, log_scale = self.end(total * inside).chunk(2, 1)
        return shift * inside, log_scale * inside

    def forward(self, x: Tensor, inside: Tensor) -> tuple[Tensor, Tensor]:
        """y and the log-determinant (B,)."""
        first, second = x.chunk(2, 1)
        shift, log_scale = self._terms(first, inside)
        return torch.cat([first, (second * log_scale.exp() + shift) * inside], 1), log_scale.sum((1, 2))

    def inverse(self, y: Tensor, inside: Tensor) -> Tensor:
        first, second = y.chunk(2, 1)
        shift, log_scale = self._terms(first, inside)
        return torch.cat([first, (second - shift) * (-log_scale).exp() * inside], 1)


class Flow(nn.Module):
    """The decoder of Glow-TTS between (B, bands, T) and latents of the same shape.

    Args:
        bands: channels of a frame, even.
        steps: of normalising, mixing and coupling.
        hidden, layers, kernel, dropout: of the couplings' networks.
    """

    def __init__(
        self, bands: int, steps: int = 12, hidden: int = 150, layers: int = 4, kernel: int = 5, dropout: float = 0.05
    ) -> None:
        super().__init__()
        channels = SQUEEZE * bands
        if channels % GROUP:
            raise ValueError(f"flow: bands must be even, got {bands}")
        self.layers = nn.ModuleList()
        for _ in range(steps):
            self.layers.extend([ActNorm(channels), Mixing(), Coupling(channels, hidden, layers, kernel, dropout)])

    def forward(self, x: Tensor, frames: Tensor, *, fit: bool = False) -> tuple[Tensor, Tensor]:
        """Latents and log |det dz/dx| (B,).

        Args:
            x: (B, bands, T), T even.
            frames: (B,) real frames, even: what lies beyond is neither read nor written.
            fit: set the activation normalisations by x first.
        Raises: ValueError: odd lengths.
        """
        y, inside = self._squeezed(x, frames)
        logdet = x.new_zeros(len(x))
        for layer in self.layers:
            if fit and isinstance(layer, ActNorm):
                layer.fit(y, inside)
            y, more = layer(y, inside)
            logdet = logdet + more
        return self._unsqueezed(y), logdet

    def inverse(self, z: Tensor, frames: Tensor) -> Tensor:
        """The x whose latents are z; arguments as `forward`."""
        y, inside = self._squeezed(z, frames)
        for layer in reversed(list(self.layers)):
            assert isinstance(layer, ActNorm | Mixing | Coupling)
            y = layer.inverse(y, inside)
        return self._unsqueezed(y)

    @staticmethod
    def _squeezed(x: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2] % SQUEEZE or bool((frames % SQUEEZE).any()):
            raise ValueError(f"flow: lengths must be even, got {frames.tolist()} in {x.shape[2]} frames; pad by one")
        inside = (torch.arange(x.shape[2] // SQUEEZE, device=x.device) < frames[:, None] // SQUEEZE)[:, None]
        y = x.unflatten(2, (-1, SQUEEZE)).permute(0, 3, 1, 2).flatten(1, 2)
        return torch.where(inside, y, 0.0), inside.to(x.dtype)

    @staticmethod
    def _unsqueezed(y: Tensor) -> Tensor:
        return y.unflatten(1, (SQUEEZE, -1)).permute(0, 2, 3, 1).flatten(2, 3)
