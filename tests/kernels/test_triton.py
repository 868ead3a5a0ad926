"""The Triton kernels: on the CPU interpreter always, on a GPU (-m gpu) for every block configuration that ships."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from melstate.kernels.gla import gla
from melstate.kernels.scan import scan


def test_interpreted_kernels_equal_their_definitions():
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-x",
            "-p",
            "no:cacheprovider",
            Path(__file__).with_name("interpreted.py"),
        ],
        env=os.environ | {"TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr


COMPILED = {
    "gla": ("forward_kernel", "dq_kernel", "dk_kernel", "dv_kernel", "step_kernel"),
    "scan": ("_forward_kernel", "_backward_kernel"),
}


@pytest.mark.slow
@pytest.mark.parametrize("module, kernel", [(m, k) for m, kernels in COMPILED.items() for k in kernels])
def test_kernels_compile_for_hopper_without_a_gpu(module, kernel):
    """The interpreter accepts what the compiler refuses: types that differ between branches, shapes, operand kinds."""
    import importlib

    import triton
    import triton.language as tl
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    function = getattr(importlib.import_module(f"melstate.kernels.{module}_triton"), kernel)
    constants = {"F": True, "HV": False, "U": False, "BK": 64, "BV": 64, "BC": 64, "MODE": 0, "DOT": tl.bfloat16}
    constants = constants if module == "gla" else {"MODE": 1, "ROWS": 32, "BD": 64}
    constants = {name: value for name, value in constants.items() if name in function.arg_names}
    kinds = dict.fromkeys(("qs", "ks", "vs", "fs", "hs", "ys", "ds", "time", "H", "K", "V", "D"), "i32")
    kinds |= dict.fromkeys(("q", "k", "v", "f", "h", "u", "y", "dy", "dk", "dv", "a", "b", "da", "db"), "*bf16")
    kinds |= {"scale": "fp32", "ends": "*i64"} | dict.fromkeys(constants, "constexpr")
    signature = {name: kinds.get(name, "*fp32") for name in function.arg_names}
    places = {(function.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(function, signature, constexprs=places)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4})
    assert compiled.metadata.shared <= 227 * 1024


def compare(found, wanted, tolerance):
    for name, x in wanted.items():
        error = (found[name].double() - x.double()).square().mean().sqrt() / (
            x.double().square().mean().sqrt() + 1e-300
        )
        assert float(error) < tolerance, name


def differentiate(function, leaves, seeds):
    leaves = {n: None if x is None else x.detach().clone().requires_grad_() for n, x in leaves.items()}
    outputs = function(leaves)
    sum((y.double() * seed).sum() for y, seed in zip(outputs, seeds, strict=True)).backward()
    named = dict(zip(("y", "final"), (y.detach() for y in outputs), strict=True))
    return named | {f"d{n}": x.grad for n, x in leaves.items() if x is not None}


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.005)])
@pytest.mark.parametrize("gate", [0.1, 1, 16])
@pytest.mark.parametrize("decays", ["key", "both", "none", "bonus"])
@pytest.mark.parametrize("keys, values", [(32, 32), (60, 100), (64, 64), (64, 256), (100, 60), (128, 128), (256, 256)])
def test_gla_on_the_gpu(keys, values, decays, gate, dtype, tolerance):
    """One entry per choice of blocks in gla_triton._Launch.blocks, and widths that fill none of them."""
    torch.manual_seed(0)
    for time in (1, 15, 63, 64, 65, 1024):

        def draw(*shape):
            return torch.randn(*shape, device="cuda", dtype=torch.float64)

        def decay(width, time=time, draw=draw):
            return F.logsigmoid(draw(2, time, 2, width)) / gate

        given = {
            "q": draw(2, time, 2, keys), "k": draw(2, time, 2, keys), "v": draw(2, time, 2, values),
            "log_decay": decay(keys) if decays in ("key", "both", "bonus") else None,
            "value_log_decay": decay(values) if decays == "both" else None,
            "bonus": draw(2, keys) if decays == "bonus" else None,
        }  # fmt: skip
        given = {n: None if x is None else x.to(dtype) for n, x in given.items()}
        given["state"] = draw(2, 2, keys, values).float()
        seeds = draw(2, time, 2, values), draw(2, 2, keys, values)
        exact = {n: None if x is None else x.double() for n, x in given.items()}
        wanted = differentiate(lambda g: gla(**g, scale=keys**-0.5, backend="chunked"), exact, seeds)
        found = differentiate(lambda g: gla(**g, scale=keys**-0.5, backend="triton"), given, seeds)
        compare(found, wanted, tolerance)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype, tolerance", [(torch.float32, 1e-5), (torch.bfloat16, 0.005)])
@pytest.mark.parametrize("width", [1, 64, 1000])
def test_scan_on_the_gpu(width, dtype, tolerance):
    torch.manual_seed(0)
    for time in (1, 31, 32, 33, 1000):
        a = torch.sigmoid(torch.randn(3, time, width, device="cuda")).to(dtype)
        b = torch.randn(3, time, width, device="cuda").to(dtype)
        given = {"a": a, "b": b, "state": torch.randn(3, width, device="cuda")}
        seeds = torch.randn_like(b, dtype=torch.float64), torch.randn(3, width, device="cuda", dtype=torch.float64)
        wanted = differentiate(lambda g: scan(**g, backend="chunked"), {n: x.double() for n, x in given.items()}, seeds)
        compare(differentiate(lambda g: scan(**g, backend="triton"), given, seeds), wanted, tolerance)
