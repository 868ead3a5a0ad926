"""What acoustic models that read symbol ids have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from melstate.tts.acoustic import AcousticModel
from melstate.tts.text import symbols as table
from melstate.vocoders.mel import MelConfig


class SymbolModel(AcousticModel):
    """An acoustic model with a symbol table, of which some ids are pauses and some are spoken as others.

    Args:
        symbols: size of the symbol table.
        mel: mel contract, as MelConfig or its dict; the default contract if None.
        config: the other keyword arguments that rebuild the model.
        pausing: symbol ids that `Controls.pause` stretches; None for punctuation and edges.
        stand_ins: id spoken in place of an id that training hardly saw, as pairs; see `set_stand_ins`.
    """

    def __init__(
        self,
        symbols: int,
        mel: MelConfig | Mapping[str, Any] | None,
        config: Mapping[str, Any],
        *,
        pausing: Sequence[int] | None,
        stand_ins: Sequence[Sequence[int]],
    ) -> None:
        super().__init__()
        self.mel = mel if isinstance(mel, MelConfig) else MelConfig.from_dict(dict(mel)) if mel else MelConfig()
        if pausing is None:
            pausing = table.to_ids((table.PAD, table.BEGIN, table.END, *table.PUNCTUATION))
        self.config: dict[str, Any] = {
            "symbols": symbols,
            "mel": self.mel.to_dict(),
            **config,
            "pausing": list(pausing),
        }
        self.symbols, self.pausing = symbols, frozenset(pausing)
        self.set_stand_ins(dict(stand_ins))  # type: ignore[arg-type]

    def set_stand_ins(self, stand_ins: Mapping[int, int]) -> None:
        """Ids that `stream` replaces by better-known ones; part of the configuration.

        Raises: ValueError: ids outside the symbol table.
        """
        pairs = sorted((int(a), int(b)) for a, b in stand_ins.items())
        if any(not 0 <= i < self.symbols for pair in pairs for i in pair):
            raise ValueError(f"stand_ins: ids must be in 0..{self.symbols - 1}, got {pairs}")
        self.config["stand_ins"] = [list(pair) for pair in pairs]
        self.stand_ins = dict(pairs)

    def spoken_ids(self, sentences: Sequence[Sequence[int]], device: torch.device) -> tuple[Tensor, Tensor]:
        """Ids with their stand-ins, padded (B, N), and lengths (B,). Raises ValueError: a sentence without symbols."""
        if not sentences or any(len(phones) == 0 for phones in sentences):
            raise ValueError("no symbols to speak")
        lengths = [len(phones) for phones in sentences]
        rows = [[self.stand_ins.get(i, i) for i in phones] + [0] * (max(lengths) - len(phones)) for phones in sentences]
        return torch.tensor(rows, device=device), torch.tensor(lengths, device=device)

    def pauses(self, ids: Tensor) -> Tensor:
        """Which ids are pauses."""
        return torch.isin(ids, torch.tensor(sorted(self.pausing), device=ids.device))

    def marks(self, ids: Tensor) -> Tensor:
        """Which of (B, N) ids `Controls.pause` stretches. An edge before the first symbol holds little silence of its
        own and keeps it."""
        return self.pauses(ids) & (torch.arange(ids.shape[1], device=ids.device) > 0)

    def check_ids(self, phones: Tensor) -> None:
        """Raises ValueError: ids outside the symbol table."""
        if int(phones.max()) >= self.symbols or int(phones.min()) < 0:
            raise ValueError(
                f"symbol ids must be in 0..{self.symbols - 1}, got {int(phones.min())}..{int(phones.max())}; "
                "the text was prepared by another front-end version"
            )
