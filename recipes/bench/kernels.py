"""The recurrences' forms against each other and against what else could do their work, in one run.

    python -m melstate.recipes.bench.kernels                       # CPU, one thread
    python -m melstate.recipes.bench.kernels --device cuda         # speech shapes, bfloat16, also as CUDA graphs

Beside each form of ours: the naive loop, two dense products of as many operations, causal attention (SDPA), and
flash-linear-attention where it is importable. TFLOP/s counts the chunked form's products at chunk 64; GB/s counts each
operand and result once; shares are of the copy and product rates measured in the same run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from melstate.kernels.gla import gla
from melstate.kernels.memory import keep_freed_memory
from melstate.kernels.scan import scan
from melstate.recipes.bench.table import environment, table, timings

RESULTS = Path(__file__).parent / "results"
CHUNK = 64
# (batch, time, heads, keys, values)
CPU_SHAPES = [(4, 1024, 4, 64, 64), (16, 200, 4, 32, 64)]
CUDA_SHAPES = [
    (8, 500, 4, 64, 64), (8, 3000, 4, 64, 128), (16, 1024, 4, 128, 256), (32, 1000, 8, 64, 64), (64, 500, 4, 128, 128),
]  # fmt: skip
LONG = [1 << n for n in range(10, 17)]


def operands(shape: tuple[int, ...], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    batch, time, heads, keys, values = shape
    q, k, f = (torch.randn(batch, time, heads, keys, device=device) for _ in range(3))
    v = torch.randn(batch, time, heads, values, device=device)
    given = {"q": q * keys**-0.5, "k": k, "v": v, "log_decay": F.logsigmoid(f) / 16}
    return {name: x.to(dtype) for name, x in given.items()}


def operations(shape: tuple[int, ...]) -> int:
    """Of the chunked forward's four products per frame: q k^T, A v, q S, k^T v."""
    batch, time, heads, keys, values = shape
    return 2 * batch * time * heads * (CHUNK * (keys + values) + 2 * keys * values)


def forms(shape: tuple[int, ...], given: dict[str, Tensor], device: str) -> dict[str, Callable[..., Any]]:
    """Each a function of (q, k, v, log_decay) → y, all of the same work but "dense" and "sdpa"."""
    batch, time, heads, keys, values = shape
    side = 512
    rows = operations(shape) // 2 // (2 * side * side)
    x, weight = (torch.randn(n, side, device=device, dtype=given["q"].dtype) for n in (rows, side))

    def attention(q: Tensor, k: Tensor, v: Tensor, log_decay: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), is_causal=True)

    found: dict[str, Callable[..., Any]] = {
        "naive": lambda **g: gla(**g, backend="reference")[0],
        "chunked": lambda **g: gla(**g, backend="chunked")[0],
        "two dense products": lambda **g: (x @ weight) @ weight,
        "sdpa (no decay)": attention,
    }
    if device == "cuda":
        found["triton"] = lambda **g: gla(**g, backend="triton")[0]
    if device == "cpu" and importlib.util.find_spec("fla") is not None:
        # All of it that runs without a GPU.
        from fla.ops.gla.naive import naive_recurrent_gla

        found["flash-linear-attention naive"] = lambda q, k, v, log_decay: naive_recurrent_gla(q, k, v, log_decay)[0]
    if device == "cuda" and importlib.util.find_spec("fla") is not None:
        from fla.ops.gla import chunk_gla

        found["flash-linear-attention"] = lambda q, k, v, log_decay: chunk_gla(q, k, v, log_decay, scale=1.0)[0]
    return found


def gla_rows(shape: tuple[int, ...], dtype: torch.dtype, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    given = operands(shape, dtype, device)
    size = given["q"].element_size()
    batch, time, heads, keys, values = shape
    bytes_once = batch * time * heads * (3 * keys + 2 * values) * size
    for name, function in forms(shape, given, device).items():
        few = 3 if "naive" in name else repeats

        def forward(function: Callable[..., Any] = function) -> None:
            with torch.no_grad():
                function(**given)

        def both(function: Callable[..., Any] = function) -> None:
            leaves = {n: x.detach().requires_grad_() for n, x in given.items()}
            function(**leaves).float().sum().backward()

        head = {"operation": "gla", "shape": list(shape), "dtype": str(dtype)[6:], "form": name}
        # On a GPU the naive loop is thousands of launches; it is a definition there, not a competitor.
        graphs = (False, True) if device == "cuda" and "naive" not in name else (False,)
        for graph in graphs:
            took = timings(forward, device=device, repeats=few, graph=graph)
            seconds = took.get("cpu_ms", took["median_ms"]) / 1e3
            rate = {"tflops": operations(shape) / seconds / 1e12}
            if name not in ("two dense products", "sdpa (no decay)"):
                rate["gb_per_s"] = bytes_once / seconds / 1e9
            yield head | {"run": "forward" + (" graph" if graph else "")} | took | rate
        if name != "two dense products":
            yield head | {"run": "forward+backward"} | timings(both, device=device, repeats=few)
    state = torch.randn(batch, heads, keys, values, device=device)
    frame: dict[str, Any] = {n: x[:, :1].contiguous() for n, x in given.items()}

    def step() -> None:
        with torch.no_grad():
            gla(**frame, state=state)

    took = timings(step, device=device, repeats=repeats * 5)
    yield {"operation": "gla", "shape": [batch, 1, *shape[2:]], "dtype": str(dtype)[6:], "form": "step",
           "run": "forward"} | took  # fmt: skip


def scan_rows(shape: tuple[int, int, int], dtype: torch.dtype, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    a = torch.sigmoid(torch.randn(shape, device=device) + 3).to(dtype)
    b = torch.randn(shape, device=device).to(dtype)
    for form in ("reference", "chunked", *(("triton",) if device == "cuda" else ())):

        def forward(form: Any = form) -> None:
            with torch.no_grad():
                scan(a, b, backend=form)

        def both(form: Any = form) -> None:
            leaves = [x.detach().requires_grad_() for x in (a, b)]
            scan(*leaves, backend=form)[0].float().sum().backward()

        few = 3 if form == "reference" else repeats
        head = {"operation": "scan", "shape": list(shape), "dtype": str(dtype)[6:],
                "form": "naive" if form == "reference" else form}  # fmt: skip
        took = timings(forward, device=device, repeats=few)
        seconds = took.get("cpu_ms", took["median_ms"]) / 1e3
        yield head | {"run": "forward"} | took | {"gb_per_s": 3 * a.numel() * a.element_size() / seconds / 1e9}
        yield head | {"run": "forward+backward"} | timings(both, device=device, repeats=few)


def growth_rows(dtype: torch.dtype, device: str, repeats: int) -> Iterator[dict[str, Any]]:
    """The forward's cost per frame as one row grows from 1k to 64k frames, relative to 1k."""
    first = None
    for time in LONG:
        given = operands((1, time, 4, 64, 64), dtype, device)

        def forward(given: dict[str, Any] = given) -> None:
            with torch.no_grad():
                gla(**given)

        took = timings(forward, device=device, repeats=max(3, repeats * LONG[0] // time))
        cost = took.get("cpu_ms", took["median_ms"]) / time
        first = first or cost
        yield {"operation": "gla", "shape": [1, time, 4, 64, 64], "dtype": str(dtype)[6:], "form": "auto",
               "run": "growth"} | took | {"cost_per_frame_to_1k": cost / first}  # fmt: skip


def limits(dtype: torch.dtype, device: str) -> dict[str, float]:
    """What this machine can do: GB/s of a large copy, TFLOP/s of a large product."""
    n = 4096 if device == "cuda" else 1024
    x, y = torch.randn(2, n, n, device=device).to(dtype)
    source = torch.empty((1 << 28) if device == "cuda" else (1 << 24), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = timings(lambda: target.copy_(source), device=device, repeats=9)
    product = timings(lambda: x @ y, device=device, repeats=9)
    clock = "cpu_ms" if device == "cpu" else "median_ms"
    return {
        "copy_gb_per_s": 2 * source.numel() / copy[clock] / 1e6,
        "product_tflops": 2 * n**3 / product[clock] / 1e9,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--out", type=Path, help="JSON; results/kernels_<device>.json by default")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    device, repeats = arguments.device, arguments.repeats
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    result: dict[str, Any] = environment(device) | {"limits": limits(dtype, device)}
    found = importlib.util.find_spec("fla") is not None
    result["flash_linear_attention"] = (
        "not importable" if not found else "its kernels" if device == "cuda" else "its naive form: the rest needs a GPU"
    )
    rows: list[dict[str, Any]] = []
    for shape in CUDA_SHAPES if device == "cuda" else CPU_SHAPES:
        rows += gla_rows(shape, dtype, device, repeats)
    rows += scan_rows((16, 1024, 256), dtype, device, repeats)
    rows += growth_rows(dtype, device, repeats)
    for row in rows:
        for rate, limit in (("tflops", "product_tflops"), ("gb_per_s", "copy_gb_per_s")):
            if rate in row:
                row[f"{rate}_share"] = row[rate] / result["limits"][limit]
    result["rows"] = rows
    out = arguments.out or RESULTS / f"kernels_{device}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name != "rows"})
    print(table(rows))


if __name__ == "__main__":
    main()
