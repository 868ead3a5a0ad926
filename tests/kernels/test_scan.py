"""The diagonal scan: the chunked form against the definition."""

import itertools

import pytest
import torch

from melstate.kernels.scan import scan
from melstate.kernels.scan_chunked import WIDE

torch.set_num_threads(1)


def results(a, b, state, dh, dlast, backend, **options):
    leaves = [x.clone().requires_grad_() for x in (a, b, state)]
    h, last = scan(*leaves, backend=backend, **options)
    ((h * dh).sum() + (last * dlast).sum()).backward()
    return dict(zip(("h", "last", "da", "db", "dstate"), (h, last, *(x.grad for x in leaves)), strict=True))


@pytest.mark.parametrize("width", [5, WIDE])
@pytest.mark.parametrize("time", [1, 15, 16, 63, 65, 1000])
def test_chunked_equals_the_definition(width, time):
    if width > 5 and time > 65:
        time = 200
    torch.manual_seed(time)
    shape = 2, time, width
    # Decays of both signs, some zero, some one: nothing may take a logarithm or divide.
    a = (torch.randn(shape, dtype=torch.float64)).clamp(-1, 1) * (torch.rand(shape) > 0.1)
    b, dh = torch.randn(shape, dtype=torch.float64), torch.randn(shape, dtype=torch.float64)
    state, dlast = torch.randn(2, width, dtype=torch.float64), torch.randn(2, width, dtype=torch.float64)
    wanted = results(a, b, state, dh, dlast, "reference")
    for name, found in results(a, b, state, dh, dlast, "chunked").items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-10, atol=1e-10, msg=name)
    found = results(a.float(), b.float(), state.float(), dh.float(), dlast.float(), "chunked")
    for name, x in found.items():
        error = (x.double() - wanted[name]).square().mean().sqrt() / wanted[name].square().mean().sqrt()
        assert error < 1e-5, name


@pytest.mark.parametrize("time", [1, 15, 63, 64, 65, 1000])
def test_bfloat16_stays_within_its_rounding(time):
    torch.manual_seed(time)
    shape = 2, time, 5
    a, b = torch.sigmoid(torch.randn(shape)).bfloat16(), torch.randn(shape).bfloat16()
    dh, state, dlast = torch.randn(shape), torch.randn(2, 5), torch.randn(2, 5)
    wanted = results(*(x.double() for x in (a, b, state, dh, dlast)), "reference")
    for name, x in results(a, b, state, dh, dlast, "chunked").items():
        error = (x.double() - wanted[name]).square().mean().sqrt() / wanted[name].square().mean().sqrt()
        assert error < 0.005, name


@pytest.mark.parametrize("backend", ["reference", "chunked"])
def test_lengths_and_packing(backend):
    torch.manual_seed(0)
    a, b = torch.rand(3, 40, 4, dtype=torch.float64), torch.randn(3, 40, 4, dtype=torch.float64)
    state, lengths = torch.randn(3, 4, dtype=torch.float64), torch.tensor([40, 0, 17])
    padding = (torch.arange(40) >= lengths[:, None])[..., None]
    spoiled = (x.masked_fill(padding, float("nan")) for x in (a, b))
    h, last = scan(*spoiled, state, lengths=lengths, backend=backend)
    assert torch.equal(last[1], state[1]) and not h[1:2].any() and not h[2, 17:].any()
    packed = [torch.cat([x[row, :n] for row, n in enumerate(lengths)])[None] for x in (a, b)]
    ends = torch.cat([torch.zeros(1, dtype=torch.long), lengths.cumsum(0)])
    flat, ends_state = scan(*packed, state, cu_seqlens=ends, backend=backend)
    torch.testing.assert_close(ends_state, last, rtol=0, atol=1e-12)
    for row, (start, end) in enumerate(itertools.pairwise(ends.tolist())):
        alone, _ = scan(a[row : row + 1, : end - start], b[row : row + 1, : end - start], state[row : row + 1])
        torch.testing.assert_close(flat[:, start:end], alone, rtol=0, atol=1e-12)
        torch.testing.assert_close(h[row : row + 1, : end - start], alone, rtol=0, atol=1e-12)


def test_scan_refuses_what_cannot_work(monkeypatch):
    a = torch.rand(2, 4, 3)
    with pytest.raises(ValueError, match=r"a \(2, 4, 3\), b \(2, 4, 2\)"):
        scan(a, a[..., :2])
    with pytest.raises(ValueError, match="float32 and torch.float64"):
        scan(a, a.double())
    with pytest.raises(ValueError, match=r"state must be \(2, 3\) torch.float32"):
        scan(a, a, torch.zeros(2, 4))
    with pytest.raises(RuntimeError, match="needs CUDA"):
        monkeypatch.setenv("TRITON_INTERPRET", "0")
        scan(a, a, backend="triton")
    monkeypatch.setenv("MELSTATE_DEBUG", "1")
    with pytest.raises(ValueError, match=r"\|a\| must be <= 1"):
        scan(a + 1, a)
