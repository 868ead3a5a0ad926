"""A training step of the published Neural HMM's size: ours beside a loop over frames of the same arithmetic.

    python -m melstate.recipes.bench.neural_hmm corpus=kathleen threads=1 +bench.repeats=1

The baseline is the published arithmetic as the public code orders it: for every frame the prenet and an LSTM cell,
[h; e] for every state through the unsplit output network, torch.distributions, one step of the forward recursion, and
autograd through it all. Both read one set of random weights and must agree on the likelihood. Each runs in a process of
its own; memory is the most that process held above what it held before the first step. Then ours alone, for one
utterance of 1, 2, 3 and 4 joined clips: an utterance k times as long has k times the frames T for the LSTM and k² times
the pairs T·N of frame and state for the emissions, and time is fitted by those two terms.

Overrides are those of melstate.recipes.train; +bench.batch, +bench.repeats, +bench.frames (which cuts mels) and
+bench.joined (one utterance of so many clips) change what is measured, and only=ours or only=loop measures one form in
this process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from melstate.kernels.memory import keep_freed_memory
from melstate.recipes.bench.table import environment, peak_bytes, table, timings

RESULT = Path(__file__).parent / "results" / "neural_hmm_cpu.json"
LENGTHS = (1, 2, 3, 4)  # clips joined


class Loop(nn.Module):
    """The published model under its published names, its likelihood frame by frame."""

    def __init__(
        self,
        symbols: int = 150,
        bands: int = 80,
        width: int = 512,
        prenet: int = 256,
        cells: int = 1024,
        states: int = 2,
    ) -> None:
        super().__init__()
        self.states = states
        self.embedding = nn.Embedding(symbols, width)
        self.encoder = nn.Module()
        conv = [nn.ModuleDict({"conv": nn.Conv1d(width, width, 5, padding=2)}) for _ in range(3)]
        self.encoder.convolutions = nn.ModuleList(nn.ModuleList([c, nn.BatchNorm1d(width)]) for c in conv)
        self.encoder.lstm = nn.LSTM(width, width, batch_first=True, bidirectional=True)
        self.hmm = nn.Module()
        self.hmm.go_tokens = nn.Parameter(torch.randn(1, bands))
        self.hmm.prenet = _layers([(bands, prenet, False), (prenet, prenet, False)], last=True)
        self.hmm.post_prenet_rnn = nn.LSTMCell(prenet, cells)
        self.hmm.decoder = nn.Module()
        part = 2 * width // states
        self.hmm.decoder.decoder_network = _layers(
            [(cells + part, cells, True), (cells, 2 * bands + 1, True)], last=False
        )

    def log_likelihood(self, phones: Tensor, lengths: Tensor, mels: Tensor, frames: Tensor) -> Tensor:
        """(B,) for normalised mels (B, bands, T); no dropout."""
        inside = (torch.arange(phones.shape[1]) < lengths[:, None])[:, None]
        x = self.embedding(phones).transpose(1, 2) * inside
        for convolution, norm in self.encoder.convolutions:  # type: ignore[union-attr]
            x = F.relu(norm(convolution["conv"](x))) * inside
        packed = nn.utils.rnn.pack_padded_sequence(x.transpose(1, 2), lengths, batch_first=True, enforce_sorted=False)
        encoded = nn.utils.rnn.pad_packed_sequence(self.encoder.lstm(packed)[0], batch_first=True)[0]  # type: ignore[operator]
        batch, width = len(phones), phones.shape[1] * self.states
        encoded = encoded.reshape(batch, width, -1)
        outside = torch.arange(width) >= self.states * lengths[:, None]
        first, second = (layer["linear"][0] for layer in self.hmm.prenet["layers"])  # type: ignore[index]
        hidden_layer, out_layer = self.hmm.decoder.decoder_network["layers"]  # type: ignore[index, union-attr]
        before: Tensor = self.hmm.go_tokens.expand(batch, -1)  # type: ignore[operator, union-attr, assignment]
        state: Any = None
        alpha = torch.zeros(batch, width)
        total, last = torch.zeros(batch), torch.zeros(batch)
        impossible = torch.full((batch, width), -float("inf"))
        impossible[:, 0] = 0.0
        ends = self.states * lengths - 1
        for t in range(mels.shape[2]):
            state = self.hmm.post_prenet_rnn(F.relu(second(F.relu(first(before)))), state)  # type: ignore[operator]
            read = torch.cat([state[0][:, None].expand(-1, width, -1), encoded], -1)
            out = out_layer(F.relu(hidden_layer["linear"][0](read)))
            bands = mels.shape[1]
            density = torch.distributions.Normal(out[..., :bands], F.softplus(out[..., bands:-1]).clamp(min=0.01))
            seen = density.log_prob(mels[:, None, :, t]).sum(-1).masked_fill(outside, -float("inf"))
            move, stay = F.logsigmoid(out[..., -1]), F.logsigmoid(-out[..., -1])
            if t == 0:
                now = seen + impossible
            else:
                shifted = F.pad((alpha + move)[:, :-1], (1, 0), value=-float("inf"))
                now = seen + torch.logaddexp((alpha + stay).clamp(min=-1e30), shifted.clamp(min=-1e30))
            scale = now.logsumexp(1)
            alpha = (now - scale[:, None]).clamp(min=-1e30)
            total = total + scale.masked_fill(t >= frames, 0.0)
            leaving = (alpha + move).gather(1, ends[:, None])[:, 0]
            last = last + leaving.masked_fill(t != frames - 1, 0.0)
            before = mels[:, :, t]
        return total + last


def _layers(sizes: Sequence[tuple[int, int, bool]], last: bool) -> nn.ModuleDict:
    """layers.<i>.linear.0, and a bare last layer unless `last` is wrapped too."""
    layers: list[nn.Module] = []
    for number, (inputs, outputs, bias) in enumerate(sizes):
        linear = nn.Linear(inputs, outputs, bias=bias)
        bare = number == len(sizes) - 1 and not last
        layers.append(linear if bare else nn.ModuleDict({"linear": nn.ModuleList([linear])}))
    return nn.ModuleDict({"layers": nn.ModuleList(layers)})


def resident() -> float:
    """MB that this process has held at most."""
    return peak_bytes() / 1e6


def measure(config: Any, which: str) -> dict[str, Any]:
    """Time and memory of one form's forward and backward pass."""
    import hydra

    from melstate.recipes.data.batches import collate, join
    from melstate.tts.neural_hmm_published import from_published

    options = {"batch": 8, "repeats": 3, "frames": 0, "joined": 0, **config.get("bench", {})}
    torch.set_num_threads(config.threads or 1)
    keep_freed_memory()
    data = hydra.utils.instantiate(config.data, _convert_="all")
    clips = data.load(data.utterances()[0][: options["joined"] or options["batch"]])
    if options["joined"]:
        clips = [reduce(join, clips)]
    batch = collate(clips)
    if options["frames"]:
        batch = batch._replace(
            mels=batch.mels[..., : options["frames"]], mel_lengths=batch.mel_lengths.clamp(max=options["frames"])
        )
    torch.manual_seed(0)
    loop = Loop(bands=batch.mels.shape[1]).eval()
    model: nn.Module = loop
    if which == "ours":
        model = ours = from_published(loop.state_dict(), mel_mean=-5.0, mel_std=2.0).eval()
    found: list[float] = []

    def step() -> None:
        model.zero_grad()
        if which == "ours":
            value = ours.log_likelihood(batch, dropout=False)
        else:
            value = loop.log_likelihood(batch.phones, batch.phone_lengths, (batch.mels + 5) / 2, batch.mel_lengths)
        value.sum().backward()
        found[:] = value.tolist()

    before = resident()
    timed = timings(step, device="cpu", repeats=options["repeats"])
    pairs = int((batch.mel_lengths * batch.phone_lengths * 2).sum())
    return {
        "form": which, "batch": len(clips), "frames": int(batch.mel_lengths.sum()), "pairs": pairs, **timed,
        "peak_mb": resident() - before, "log_likelihood": sum(found),
    }  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    from hydra import compose, initialize_config_module

    given = list(sys.argv[1:] if argv is None else argv)
    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        config = compose("train", ["experiment=neural_hmm", *(x for x in given if not x.startswith("only="))])
    only = [x.removeprefix("only=") for x in given if x.startswith("only=")]
    if only:
        print(json.dumps(measure(config, only[0])))
        return 0
    rows = [alone(which, given) for which in ("ours", "loop")]
    print(table(rows))
    ours, loop = rows
    factors = {
        "faster": loop["cpu_ms"] / ours["cpu_ms"],
        "memory": ours["peak_mb"] / loop["peak_mb"],
        "disagreement": abs(loop["log_likelihood"] / ours["log_likelihood"] - 1),
    }
    print(table([factors]))
    lengths = [alone("ours", [*given, f"+bench.joined={count}"]) for count in LENGTHS]
    print(table(lengths))
    fitted = fit([row["frames"] for row in lengths], [row["pairs"] for row in lengths], [r["cpu_ms"] for r in lengths])
    print(table([{**fitted}]))
    result = {"environment": environment("cpu"), "rows": rows, **factors, "lengths": lengths, "fit": fitted}
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(result, indent=1) + "\n", "utf-8")
    return 0


def alone(which: str, arguments: Sequence[str]) -> dict[str, Any]:
    """`measure` in a process of its own."""
    command = [sys.executable, "-m", "melstate.recipes.bench.neural_hmm", *arguments, f"only={which}"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def fit(frames: Sequence[int], pairs: Sequence[int], times: Sequence[float]) -> dict[str, float]:
    """times ≈ frames · ms_a_frame + pairs · us_a_pair / 1000 by least squares, and the worst relative error."""
    terms = np.array([frames, pairs], float).T
    (by_frame, by_pair), *_ = np.linalg.lstsq(terms, np.array(times), rcond=None)
    errors = terms @ [by_frame, by_pair] / np.array(times) - 1
    return {"ms_a_frame": by_frame, "us_a_pair": 1000 * by_pair, "worst_error": float(np.abs(errors).max())}


if __name__ == "__main__":
    sys.exit(main())
