"""Triton kernels on the CPU interpreter: run by test_triton.py in a process of its own.

TRITON_INTERPRET must be set before triton is imported, and a process cannot go back.
"""

import pytest
import torch
import torch.nn.functional as F

from melstate.kernels.backend import interpreting
from melstate.kernels.gla import gla
from melstate.kernels.scan import scan

torch.set_num_threads(1)
assert interpreting(), "run with TRITON_INTERPRET=1"


def relative(found, wanted):
    error = (found.detach().double() - wanted.detach().double()).square().mean().sqrt()
    return float(error / (wanted.detach().double().square().mean().sqrt() + 1e-300))


def differentiate(function, given, seeds, dtype):
    """Outputs and gradients by name of `function(**given)` in `dtype`, weighed by `seeds`."""
    leaves = {n: None if x is None else x.to(dtype).clone().requires_grad_() for n, x in given.items()}
    outputs = function(leaves)
    sum((y * seed.to(dtype)).sum() for y, seed in zip(outputs, seeds, strict=True)).backward()
    named = dict(zip(("y", "final"), outputs, strict=True))
    return named | {f"d{n}": x.grad for n, x in leaves.items() if x is not None}


def draw(*shape):
    return torch.randn(*shape, dtype=torch.float64)


CASES = {
    # name: time, keys, values, gate, what decays, lengths, cu_seqlens
    "mild": (70, 17, 12, "mild", "key", None, None),
    "both sides, chunks in parts": (70, 16, 20, "plain", "both", None, None),
    "value side, one frame more than a chunk": (65, 5, 7, "mild", "value", None, None),
    "no decay": (40, 16, 16, "mild", "none", None, None),
    "bonus": (37, 17, 12, "plain", "bonus", None, None),
    "frame by frame": (20, 6, 5, "strong", "both", None, None),
    "bonus frame by frame": (18, 6, 5, "strong", "bonus", None, None),
    "padded rows": (35, 6, 5, "plain", "key", [0, 35, 18], None),
    "packed rows": (40, 6, 5, "plain", "both", None, [0, 18, 18, 40]),
    "one frame": (1, 17, 12, "mild", "both", None, None),
    "one frame, bonus": (1, 17, 12, "mild", "bonus", None, None),
    "wide values": (20, 4, 130, "mild", "key", None, None),
    "wide keys": (20, 130, 4, "mild", "key", None, None),
}


@pytest.mark.parametrize("case", CASES)
def test_gla_equals_the_definition(case):
    time, keys, values, gate, decays, lengths, packed = CASES[case]
    torch.manual_seed(0)
    batch = 1 if lengths is None else len(lengths)
    rows = batch if packed is None else len(packed) - 1

    def decay(width):
        logits = draw(batch, time, 1, width)
        return {"mild": F.logsigmoid(logits) / 16, "plain": F.logsigmoid(logits),
                "strong": F.logsigmoid(logits - 20)}[gate]  # fmt: skip

    given = {
        "q": draw(batch, time, 1, keys),
        "k": draw(batch, time, 1, keys),
        "v": draw(batch, time, 1, values),
        "log_decay": decay(keys) if decays in ("key", "both", "bonus") else None,
        "value_log_decay": decay(values) if decays in ("value", "both") else None,
        "bonus": draw(1, keys) if decays == "bonus" else None,
        "state": draw(rows, 1, keys, values),
    }
    seeds = draw(batch, time, 1, values), draw(rows, 1, keys, values)
    options = {
        "lengths": None if lengths is None else torch.tensor(lengths),
        "cu_seqlens": None if packed is None else torch.tensor(packed),
        "scale": 0.5,
    }

    def run(backend):
        return lambda leaves: gla(**leaves, **options, backend=backend)

    wanted = differentiate(run("reference"), given, seeds, torch.float64)
    found = differentiate(run("triton"), given, seeds, torch.float32)
    for name in wanted:
        if gate == "strong" and name.endswith("log_decay"):
            # The gradient itself is about e^-20; what remains is the rounding of q·dq, of size one here.
            assert float((found[name] - wanted[name]).abs().max()) < 1e-4, name
        else:
            assert relative(found[name], wanted[name]) < 1e-5, name


def test_gla_decodes_as_it_trains():
    torch.manual_seed(1)
    q, k, v = (torch.randn(1, 3, 2, 8) for _ in range(3))
    f = F.logsigmoid(torch.randn(1, 3, 2, 8))
    y, final = gla(q, k, v, f, backend="triton")
    state, parts = None, []
    for t in range(3):
        out, state = gla(*(x[:, t : t + 1] for x in (q, k, v, f)), state, backend="triton")
        parts.append(out)
    torch.testing.assert_close(torch.cat(parts, 1), y)
    torch.testing.assert_close(state, final)


def test_gla_takes_views_of_one_projection():
    torch.manual_seed(2)
    q, k, v = torch.randn(2, 9, 48).split(16, dim=-1)
    q, k, v = (x.unflatten(-1, (2, 8)) for x in (q, k, v))
    views = gla(q, k, v, None, backend="triton")
    copies = gla(q.contiguous(), k.contiguous(), v.contiguous(), None, backend="triton")
    assert all(torch.equal(a, b) for a, b in zip(views, copies, strict=True))


def test_triton_refuses_what_it_cannot_do():
    x = torch.zeros(1, 2, 1, 4)
    with pytest.raises(ValueError, match="float64"):
        gla(x.double(), x.double(), x.double(), None, backend="triton")
    with pytest.raises(ValueError, match="at most 256 .* got 4 and 300"):
        gla(x, x, torch.zeros(1, 2, 1, 300), None, backend="triton")
    with pytest.raises(ValueError, match="float64"):
        scan(x[0].double(), x[0].double(), backend="triton")


@pytest.mark.parametrize("time, lengths, packed", [
    (70, None, None), (32, None, None), (1, None, None), (33, [0, 33, 5], None), (40, None, [0, 7, 7, 40]),
])  # fmt: skip
def test_scan_equals_the_definition(time, lengths, packed):
    torch.manual_seed(3)
    batch = 1 if lengths is None else len(lengths)
    rows = batch if packed is None else len(packed) - 1
    given = {"a": draw(batch, time, 5).clamp(-1, 1), "b": draw(batch, time, 5), "state": draw(rows, 5)}
    seeds = draw(batch, time, 5), draw(rows, 5)
    options = {
        "lengths": None if lengths is None else torch.tensor(lengths),
        "cu_seqlens": None if packed is None else torch.tensor(packed),
    }
    results = [
        differentiate(lambda leaves, b=backend: scan(**leaves, **options, backend=b), given, seeds, dtype)
        for backend, dtype in (("reference", torch.float64), ("triton", torch.float32))
    ]
    for name, wanted in results[0].items():
        assert relative(results[1][name], wanted) < 1e-5, name
