"""Gated linear attention: the chunked form against the definition, outputs, states and every gradient by name."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from melstate.kernels.gla import gla
from melstate.kernels.gla_blocks import Chunk
from melstate.kernels.gla_chunked import _leaf

torch.set_num_threads(1)
NAMES = "q", "k", "v", "log_decay", "value_log_decay", "bonus", "state"
MODES = "key", "value", "both", "none", "bonus"


def relative(found, wanted):
    """RMS of the difference over RMS of what is wanted."""
    error = (found.detach().double() - wanted.detach().double()).square().mean().sqrt()
    return float(error / (wanted.detach().double().square().mean().sqrt() + 1e-300))


def operands(mode, time, *, batch=2, heads=2, keys=17, values=12, gate="mild"):
    def draw(*shape):
        return torch.randn(*shape, dtype=torch.float64)

    def decay(width):
        logits = draw(batch, time, heads, width)
        if gate == "mild":
            return F.logsigmoid(logits) / 16
        if gate == "plain":
            return F.logsigmoid(logits)
        if gate == "strong":  # logits about -20: one step forgets everything
            return F.logsigmoid(logits - 20)
        return F.logsigmoid(4 * logits) * 5  # mixed: some channels keep, some forget at once

    return {
        "q": draw(batch, time, heads, keys),
        "k": draw(batch, time, heads, keys),
        "v": draw(batch, time, heads, values),
        "log_decay": decay(keys) if mode in ("key", "both", "bonus") else None,
        "value_log_decay": decay(values) if mode in ("value", "both") else None,
        "bonus": draw(heads, keys) if mode == "bonus" else None,
        "state": draw(batch, heads, keys, values),
    }


def results(given, dtype, backend, dy, dstate, **options):
    """y, final state and the gradients of everything given, by name."""
    leaves = {
        name: None if x is None else x.to(torch.float32 if name == "state" and dtype != torch.float64 else dtype)
        for name, x in given.items()
    }
    leaves = {name: None if x is None else x.clone().requires_grad_() for name, x in leaves.items()}
    y, state = gla(**leaves, backend=backend, **options)
    ((y.double() * dy).sum() + (state.double() * dstate).sum()).backward()
    gradients = {f"d{name}": x.grad for name, x in leaves.items() if x is not None}
    return {"y": y, "final": state} | gradients


def compare(given, dtype, tolerance, **options):
    batch, time, heads, _ = given["q"].shape
    dy, dstate = torch.randn_like(given["v"]), torch.randn_like(given["state"])
    # What the lower precision cannot see is no error of the kernel: the definition gets the rounded operands.
    rounded = {name: None if x is None else x.to(dtype).double() for name, x in given.items()}
    wanted = results(rounded, torch.float64, "reference", dy, dstate, **options)
    found = results(rounded, dtype, "chunked", dy, dstate, **options)
    for name in wanted:
        assert relative(found[name], wanted[name]) < tolerance, name


@pytest.mark.parametrize("gate", ["mild", "plain", "strong", "mixed"])
@pytest.mark.parametrize("mode", MODES)
def test_chunked_equals_the_definition(mode, gate):
    torch.manual_seed(0)
    for time in (1, 15, 63, 64, 65):
        given = operands(mode, time, gate=gate)
        compare(given, torch.float64, 1e-10, scale=0.5)
        compare(given, torch.float32, 1e-5, scale=0.5)
        compare(given, torch.bfloat16, 0.005, scale=0.5)


@pytest.mark.parametrize("gate", ["mild", "strong", "mixed"])
@pytest.mark.parametrize("mode", MODES)
def test_chunked_equals_the_definition_over_a_thousand_frames(mode, gate):
    torch.manual_seed(1)
    given = operands(mode, 1000, batch=1, heads=1, keys=5, values=3, gate=gate)
    compare(given, torch.float32, 1e-5)
    compare(given, torch.bfloat16, 0.005)


def test_lengths_stop_the_state_and_padding_may_hold_nan():
    torch.manual_seed(3)
    given = operands("both", 70, batch=4)
    lengths = torch.tensor([0, 70, 33, 1])
    compare(given, torch.float64, 1e-10, lengths=lengths)
    padding = (torch.arange(70) >= lengths[:, None])[:, :, None, None]
    spoiled = {n: x.masked_fill(padding, float("nan")) if x is not None and x.shape[1:2] == (70,) else x
               for n, x in given.items()}  # fmt: skip
    for backend in ("reference", "chunked"):
        dy, dstate = torch.randn_like(given["v"]), torch.randn_like(given["state"])
        clean = results(given, torch.float64, backend, dy, dstate, lengths=lengths)
        found = results(spoiled, torch.float64, backend, dy, dstate, lengths=lengths)
        for name in clean:
            torch.testing.assert_close(found[name], clean[name], rtol=0, atol=0, msg=f"{backend} {name}")
    torch.testing.assert_close(found["final"][0], given["state"][0], rtol=0, atol=0)
    assert not found["y"][2, 33:].any()


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_packed_sequences_equal_their_rows(backend):
    torch.manual_seed(4)
    ends = [0, 40, 40, 41, 110]
    given = operands("bonus", 110, batch=1)
    given["state"] = torch.randn(4, *given["state"].shape[1:], dtype=torch.float64)
    y, final = gla(**given, cu_seqlens=torch.tensor(ends), backend=backend)
    for row, (start, end) in enumerate(itertools.pairwise(ends)):
        part = {n: x[:, start:end] if n in ("q", "k", "v", "log_decay") else x for n, x in given.items()}
        part["state"] = given["state"][row : row + 1]
        alone, state = gla(**part, backend=backend)
        torch.testing.assert_close(y[:, start:end], alone, rtol=0, atol=1e-11)
        torch.testing.assert_close(final[row : row + 1], state, rtol=0, atol=1e-11)


def test_any_split_gives_the_same():
    torch.manual_seed(5)
    given = operands("both", 100, gate="mixed")
    y, final = gla(**given)
    state, parts = given.pop("state"), []
    for start, end in itertools.pairwise([0, 1, 2, 50, 51, 100]):
        part = {n: None if x is None else x[:, start:end] for n, x in given.items()}
        out, state = gla(**part, state=state)
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), y, rtol=0, atol=1e-11)
    torch.testing.assert_close(state, final, rtol=0, atol=1e-11)


def test_no_frames_leave_the_state():
    given = operands("key", 0)
    for backend in ("reference", "chunked"):
        y, state = gla(**given, backend=backend)
        assert y.shape == (2, 0, 2, 12)
        assert torch.equal(state, given["state"])


def test_leaves_follow_the_decay():
    def chunk(decay):
        f = torch.full((2, 32, 3), decay)
        return Chunk(torch.zeros(2, 32, 3), torch.zeros(2, 32, 3), torch.zeros(2, 32, 4), f, None)

    assert [_leaf(chunk(x), 32) for x in (0.0, -0.5, -1.0, -2.9, -3.1, -50.0)] == [32, 32, 16, 8, 1, 1]
    assert _leaf(chunk(-0.5), 4) == 16  # four real frames of 32 are judged by their own mean


def test_gla_refuses_what_cannot_work(monkeypatch):
    given = operands("both", 4)

    def call(**changed):
        return gla(**(given | changed))

    with pytest.raises(ValueError, match=r"k \(2, 4, 2, 16\)"):
        call(k=given["k"][..., :16])
    with pytest.raises(ValueError, match=r"state must be \(2, 2, 17, 12\) torch.float64, got .* torch.float32"):
        call(state=given["state"].float())
    with pytest.raises(ValueError, match="float64, torch.float32"):
        call(k=given["k"].float())
    with pytest.raises(ValueError, match="value_log_decay must be"):
        call(value_log_decay=given["log_decay"])
    with pytest.raises(ValueError, match="do not combine"):
        call(bonus=torch.zeros(2, 17))
    with pytest.raises(ValueError, match=r"0\.\.4 .* got 0\.\.5"):
        call(lengths=torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="batch axis must be 1, got 2"):
        call(cu_seqlens=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="not both"):
        call(lengths=torch.tensor([1, 1]), cu_seqlens=torch.tensor([0, 4]))
    with pytest.raises(ValueError, match="'fast'"):
        call(backend="fast")
    with pytest.raises(ValueError, match="one device"):
        call(bonus=None, k=given["k"].to("meta"))
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(RuntimeError, match="needs CUDA tensors, got device cpu"):
        call(backend="triton")
    call(log_decay=given["log_decay"] + 9)
    monkeypatch.setenv("MELSTATE_DEBUG", "1")
    with pytest.raises(ValueError, match="log_decay must be <= 0"):
        call(log_decay=given["log_decay"] + 9)
