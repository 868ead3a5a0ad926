"""The classic gated recurrences, LSTM and GRU, as mixers."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from melstate.kernels.lengths import check_lengths
from melstate.mixers.mixer import Mixer, zeros


class LSTMState(NamedTuple):
    """hidden and cell, each (B, width)."""

    hidden: Tensor
    cell: Tensor


class GRUState(NamedTuple):
    """hidden (B, width)."""

    hidden: Tensor


class _Weights(nn.Module):
    """The parameters of a one-layer torch.nn.LSTM or GRU under torch's names, without the module around them.

    torch.compile does not look inside torch's recurrent modules; it takes functions of their weights.
    """

    def __init__(self, like: nn.RNNBase) -> None:
        super().__init__()
        self.weight_ih_l0: nn.Parameter
        self.weight_hh_l0: nn.Parameter
        self.bias_ih_l0: nn.Parameter
        self.bias_hh_l0: nn.Parameter
        for name, parameter in like.named_parameters():
            self.register_parameter(name, parameter)

    def flat(self) -> list[Tensor]:
        return [self.weight_ih_l0, self.weight_hh_l0, self.bias_ih_l0, self.bias_hh_l0]


class _Recurrent(Mixer):
    """torch's own recurrence (cuDNN on a GPU), one layer, one direction; parameters keep torch's names under `rnn`."""

    def __init__(self, dim: int, rnn: type[nn.LSTM] | type[nn.GRU], width: int | None) -> None:
        super().__init__()
        self.dim, self.width = dim, width or dim
        self.rnn: Any = _Weights(rnn(dim, self.width))
        self.out = nn.Linear(self.width, dim) if self.width != dim else nn.Identity()

    def _run(self, x: Tensor, state: tuple[Tensor, ...], lengths: Tensor | None) -> tuple[Tensor, tuple[Tensor, ...]]:
        before = tuple(part.to(x.dtype) for part in state)
        if lengths is not None:
            check_lengths(lengths, x.shape[0], x.shape[1], operation="recurrent mixer")
        if not x.shape[1]:
            return self.out(x.new_zeros(x.shape[0], 0, self.width)), before
        function: Any = torch.lstm if len(before) == 2 else torch.gru
        hidden: Any = tuple(part[None].contiguous() for part in before)
        hidden = hidden if len(hidden) == 2 else hidden[0]
        layers, dropout, both_ways = 1, 0.0, False
        if lengths is None:
            y, *after = function(x, hidden, self.rnn.flat(), True, layers, dropout, self.training, both_ways, True)
            return self.out(y), tuple(part[0] for part in after)
        # Packing takes no empty rows: they run one frame, whose result is thrown away.
        packed = pack_padded_sequence(x, lengths.clamp(min=1).cpu(), batch_first=True, enforce_sorted=False)
        order, back = packed.sorted_indices, packed.unsorted_indices
        hidden = tuple(h[:, order] for h in hidden) if isinstance(hidden, tuple) else hidden[:, order]
        data, *after = function(
            packed.data, packed.batch_sizes, hidden, self.rnn.flat(), True, layers, dropout, self.training, both_ways
        )
        y, _ = pad_packed_sequence(
            PackedSequence(data, packed.batch_sizes, order, back), batch_first=True, total_length=x.shape[1]
        )
        real = (lengths > 0)[:, None]
        pairs = zip(after, before, strict=True)
        return self.out(y), tuple(torch.where(real, new[0, back], old) for new, old in pairs)


class LSTM(_Recurrent):
    """One LSTM layer.

    Args:
        dim: width of input and output.
        width: cells; dim if None, else a projection brings the output back to dim.
    Source: Hochreiter and Schmidhuber 1997; equations as torch.nn.LSTM states them.
    """

    def __init__(self, dim: int, *, width: int | None = None) -> None:
        super().__init__(dim, nn.LSTM, width)

    def init_state(self, batch: int) -> LSTMState:
        return LSTMState(zeros(self, batch, self.width), zeros(self, batch, self.width))

    def forward(
        self, x: Tensor, state: LSTMState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, LSTMState]:
        state = self.init_state(x.shape[0]) if state is None else state
        if x.shape[1] != 1 or lengths is not None:
            y, (hidden, cell) = self._run(x, state, lengths)
            return y, LSTMState(hidden, cell)
        # Written out: torch.compile and torch.export do not take torch's fused recurrence apart.
        rnn = self.rnn
        gates = linear(x[:, 0], rnn.weight_ih_l0, rnn.bias_ih_l0)
        gates = gates + linear(state.hidden, rnn.weight_hh_l0, rnn.bias_hh_l0)
        i, f, g, o = gates.chunk(4, dim=-1)
        cell = torch.sigmoid(f) * state.cell + torch.sigmoid(i) * torch.tanh(g)
        hidden = torch.sigmoid(o) * torch.tanh(cell)
        return self.out(hidden[:, None]), LSTMState(hidden, cell)


class GRU(_Recurrent):
    """One GRU layer.

    Args:
        dim: width of input and output.
        width: cells; dim if None, else a projection brings the output back to dim.
    Source: Cho et al. 2014, arXiv:1406.1078; equations as torch.nn.GRU states them.
    """

    def __init__(self, dim: int, *, width: int | None = None) -> None:
        super().__init__(dim, nn.GRU, width)

    def init_state(self, batch: int) -> GRUState:
        return GRUState(zeros(self, batch, self.width))

    def forward(
        self, x: Tensor, state: GRUState | None = None, *, lengths: Tensor | None = None
    ) -> tuple[Tensor, GRUState]:
        state = self.init_state(x.shape[0]) if state is None else state
        if x.shape[1] != 1 or lengths is not None:
            y, (hidden,) = self._run(x, state, lengths)
            return y, GRUState(hidden)
        rnn = self.rnn
        from_x = linear(x[:, 0], rnn.weight_ih_l0, rnn.bias_ih_l0).chunk(3, dim=-1)
        from_h = linear(state.hidden, rnn.weight_hh_l0, rnn.bias_hh_l0).chunk(3, dim=-1)
        r, z = torch.sigmoid(from_x[0] + from_h[0]), torch.sigmoid(from_x[1] + from_h[1])
        new = torch.tanh(from_x[2] + r * from_h[2])
        hidden = new + z * (state.hidden - new)
        return self.out(hidden[:, None]), GRUState(hidden)
