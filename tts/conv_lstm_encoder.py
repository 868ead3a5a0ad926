"""Symbols → encodings as Tacotron 2 and the published neural HMMs make them: convolutions, then a bidirectional LSTM.

Source: Shen et al. 2018 (Tacotron 2, arXiv:1712.05884), section 2.2.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence


class ConvLSTMEncoder(nn.Module):
    """Embedding of half the width, convolutions each with batch norm, ReLU and dropout, one LSTM each way."""

    def __init__(self, symbols: int, dim: int, convolutions: int = 3, kernel: int = 5, dropout: float = 0.5) -> None:
        super().__init__()
        if dim % 2 or kernel % 2 == 0:
            raise ValueError(f"conv_lstm encoder: dim must be even and kernel odd, got {dim} and {kernel}")
        width = dim // 2
        self.embedding = nn.Embedding(symbols, width)
        self.convolutions = nn.ModuleList(
            nn.Conv1d(width, width, kernel, padding=kernel // 2) for _ in range(convolutions)
        )
        self.norms = nn.ModuleList(nn.BatchNorm1d(width) for _ in range(convolutions))
        self.dropout = dropout
        self.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)

    def forward(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """(B, N) ids, (B,) lengths → (B, N, dim), zeros beyond the lengths; in eval mode nothing there is heard."""
        inside = (torch.arange(phones.shape[1], device=phones.device) < lengths[:, None])[:, None]
        x = self.embedding(phones).transpose(1, 2) * inside
        for convolution, norm in zip(self.convolutions, self.norms, strict=True):
            x = F.dropout(F.relu(norm(convolution(x))), self.dropout, self.training) * inside
        packed = pack_padded_sequence(x.transpose(1, 2), lengths.cpu(), batch_first=True, enforce_sorted=False)
        return pad_packed_sequence(self.lstm(packed)[0], batch_first=True, total_length=phones.shape[1])[0]
