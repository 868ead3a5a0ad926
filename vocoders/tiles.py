"""Streaming that equals offline bit for bit: vocoders compute in tiles of one size, whatever their caller's chunks.

Library kernels round differently for different widths, so equality needs equal shapes. Frames are gathered into tiles
of `tile` frames. A full tile moves the caches on; a part of one is computed as a tile padded with zeros, from the same
caches and without moving them, and only the samples that the frames at hand determine are given out. Offline is the
same computation with all frames in one call. Small chunks therefore cost a tile each, and wait for no more than the
receptive field.

Inside a tile the layers are causal: what looks ahead gives its output late. Rows outside the utterance are set to zero
before every convolution (`inside`), which is what a convolution padded with zeros sees.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.vocoders.vocoder import Vocoder


class TileState(NamedTuple):
    """Where a stream stands.

    Attributes:
        position: frame at which the current tile begins.
        emitted: samples given out so far.
        pending: (B, channels, n) frames of the current tile so far, n < tile.
        caches: what the layers remember of the tiles before.
    """

    position: int
    emitted: int
    pending: Tensor
    caches: Any


def inside(x: Tensor, first: int, length: int | None) -> Tensor:
    """x (B, T, C) with the rows outside the utterance zeroed.

    Args:
        first: position of row 0, negative before the beginning.
        length: of the utterance; None while unknown.
    """
    before = min(max(-first, 0), x.shape[1])
    after = x.shape[1] if length is None else min(max(length - first, 0), x.shape[1])
    if before == 0 and after == x.shape[1]:
        return x
    x = x.clone()
    x[:, :before] = 0
    x[:, after:] = 0
    return x


class TiledVocoder(Vocoder):
    """A vocoder that computes in tiles: subclasses give `delay`, `initial` and `step`.

    Attributes:
        tile: frames a tile; more is faster on long input, fewer on small chunks. Results may differ in the last bits.
    """

    tile: int = 32

    def delay(self, channels: int) -> int:
        """Samples by which the output of `step` lags behind its input of so many channels; at most tile * hop."""
        raise NotImplementedError

    def initial(self, frames: Tensor) -> Any:
        """Caches before the first tile; `frames` (B, channels, ·) tells batch size, channels, device and type."""
        raise NotImplementedError

    def step(self, frames: Tensor, position: int, length: int | None, caches: Any) -> tuple[Tensor, Any]:
        """One tile.

        Args:
            frames: (B, channels, tile); frames at or after `length` are zeros.
            position: of its first frame.
            length: of the utterance in frames; None while unknown.
        Returns: (B, tile * hop) samples from position * hop - delay on, and the caches for the next tile. Samples
        before 0 or after the end are arbitrary.
        """
        raise NotImplementedError

    def forward(self, mel: Tensor, f0: Tensor | None = None) -> Tensor:
        return self.stream(mel, final=True, f0=f0)[0]

    @torch.no_grad()
    def stream(
        self, mel: Tensor, state: TileState | None = None, *, final: bool = False, f0: Tensor | None = None
    ) -> tuple[Tensor, TileState | None]:
        """See `Vocoder.stream`; after `final` the state is None, and a stream that goes on is a new one.

        Raises: ValueError: wrong shape, number of bands, NaN or infinity, or f0 given for a part of a stream only.
        """
        frames = self._checked(mel, f0)
        if state is None:
            state = TileState(0, 0, frames[..., :0], self.initial(frames))
        if frames.shape[:2] != state.pending.shape[:2]:
            raise ValueError(
                f"{self.kind}: a stream of (batch, channels) {tuple(state.pending.shape[:2])} goes on with "
                f"{tuple(frames.shape[:2])}; keep the batch, and give f0 always or never"
            )
        position, emitted, pending, caches = state
        known, delay = pending.shape[2], self.delay(frames.shape[1])
        frames = torch.cat([pending, frames], dim=2)
        length = position + frames.shape[2] if final else None
        last = None if length is None else length * self.mel.hop
        pieces = []
        while frames.shape[2] >= self.tile or (last is not None and emitted < last):
            whole = F.pad(frames[..., : self.tile], (0, max(0, self.tile - frames.shape[2])))
            audio, caches = self.step(whole.contiguous(), position, length, caches)
            fresh = _since(audio, position * self.mel.hop - delay, emitted, last)
            frames, known = frames[..., self.tile :], 0
            position, emitted = position + self.tile, emitted + fresh.shape[1]
            pieces.append(fresh)
        if last is None and frames.shape[2] > known:
            audio, _ = self.step(F.pad(frames, (0, self.tile - frames.shape[2])), position, None, caches)
            determined = audio[:, : frames.shape[2] * self.mel.hop]
            fresh = _since(determined, position * self.mel.hop - delay, emitted, None)
            emitted += fresh.shape[1]
            pieces.append(fresh)
        audio = torch.cat(pieces, dim=1) if pieces else mel.new_zeros(len(mel), 0)
        return audio, None if final else TileState(position, emitted, frames, caches)

    def _checked(self, mel: Tensor, f0: Tensor | None) -> Tensor:
        """(B, n_mels, t) or, with f0, (B, n_mels + 1, t)."""
        if mel.dim() != 3 or mel.shape[1] != self.mel.n_mels:
            raise ValueError(
                f"{self.kind}: mel must be (batch, {self.mel.n_mels} bands, frames), got {tuple(mel.shape)}"
            )
        if not bool(torch.isfinite(mel).all()):
            frame = int((~torch.isfinite(mel)).any(1).any(0).nonzero()[0])
            raise ValueError(f"{self.kind}: mel has NaN or infinity at frame {frame}; log-mels are finite")
        if f0 is None or not self.takes_f0:
            return mel
        if f0.shape != (mel.shape[0], mel.shape[2]):
            raise ValueError(
                f"{self.kind}: f0 must be (batch, frames) {(mel.shape[0], mel.shape[2])}, got {tuple(f0.shape)}"
            )
        nyquist = self.mel.sample_rate / 2
        if not bool(((f0 >= 0) & (f0 < nyquist)).all()):
            raise ValueError(f"{self.kind}: f0 must be in Hz, 0 (unvoiced) to below {nyquist:g}")
        return torch.cat([mel, f0.to(mel).unsqueeze(1)], dim=1)


def _since(audio: Tensor, origin: int, emitted: int, last: int | None) -> Tensor:
    """Samples from `emitted` up to `last` of audio (B, n) whose first sample is number `origin`; perhaps none."""
    end = audio.shape[1] if last is None else min(audio.shape[1], last - origin)
    return audio[:, emitted - origin : max(end, emitted - origin)]
