"""The vocoder interface: log-mel frames in, audio samples out, offline or streamed."""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple, Self

from torch import Tensor, nn

from melstate.vocoders.mel import MelConfig


class VocoderBatch(NamedTuple):
    """Aligned training segments.

    Attributes:
        mel: (B, n_mels, T) log-mel, sliced from full-utterance mels (or an acoustic model's teacher-forced ones).
        audio: (B, T * hop) float in [-1, 1].
        f0: (B, T) Hz, 0 where unvoiced.
        bandwidth: (B,) Hz above which nothing is known of the audio, because it was recorded at a lower rate; spectra
            are compared below it. None where all of it is known.
    """

    mel: Tensor
    audio: Tensor
    f0: Tensor
    bandwidth: Tensor | None = None


class Vocoder(nn.Module):
    """mel → audio. `forward` must equal the concatenation of `stream` over any chunks.

    Attributes:
        kind: name under which checkpoints and configs know the class.
        config: JSON-able keyword arguments that rebuild the module: type(self)(**self.config).
        mel: the mel contract it was trained for.
        takes_f0: whether `f0` changes the output; others ignore it.
        tile: frames it is best streamed by: fewer cost as much.
        precisions: what `for_inference` can make of it.
    """

    kind: ClassVar[str]
    takes_f0: ClassVar[bool] = False
    precisions: ClassVar[tuple[str, ...]] = ("fp32",)
    tile: int = 32
    config: dict[str, Any]
    mel: MelConfig

    def forward(self, mel: Tensor, f0: Tensor | None = None) -> Tensor:
        """(B, n_mels, T) log-mel, optional f0 (B, T) in Hz with 0 = unvoiced → (B, T * hop) audio in [-1, 1]."""
        raise NotImplementedError

    def for_inference(self, precision: str = "fp32") -> Self:
        """The form to speak with: in evaluation mode, its weights as they are used fastest; perhaps the module itself.

        Args:
            precision: "fp32", or "bf16": all but the last layers compute in bfloat16, audio stays float32.
        Raises: ValueError: a precision that this kind does not have.
        """
        if precision not in self.precisions:
            known = " or ".join(map(repr, self.precisions))
            raise ValueError(f"{self.kind}: precision must be {known}, got {precision!r}")
        return self.eval()

    def generate(self, batch: VocoderBatch) -> tuple[Tensor, dict[str, Tensor]]:
        """Training form: audio (B, T * hop) with gradients, and losses of its own beside those on the audio."""
        raise NotImplementedError

    def stream(
        self, mel: Tensor, state: Any = None, *, final: bool = False, f0: Tensor | None = None
    ) -> tuple[Tensor, Any]:
        """The next samples that `mel` (B, n_mels, t ≥ 0) determines, and the state to pass with the next frames.

        `final=True` flushes what look-ahead held back; over all calls T * hop samples come out. `state=None` starts.
        """
        raise NotImplementedError
