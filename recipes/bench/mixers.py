"""What each mixer costs: forward, forward+backward, one decoded frame, and the bytes it remembers in.

python -m melstate.recipes.bench.mixers
python -m melstate.recipes.bench.mixers --device cuda
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from melstate.kernels.memory import keep_freed_memory
from melstate.mixers.block import build
from melstate.mixers.mixer import create, names
from melstate.recipes.bench.table import environment, table, timings

RESULTS = Path(__file__).parent / "results"


def mixer_row(name: str, dim: int, batch: int, time: int, device: str, repeats: int) -> dict[str, Any]:
    mixer = create(name, dim).to(device)
    x = torch.randn(batch, time, dim, device=device)
    one = torch.randn(1, 1, dim, device=device)

    def forward() -> None:
        with torch.no_grad():
            mixer(x)

    def both() -> None:
        mixer(x)[0].sum().backward()

    with torch.no_grad():
        # Decoding after a second or so of speech: attention's cache holds as much.
        _, state = mixer(torch.randn(1, 100, dim, device=device))

    def step() -> None:
        with torch.no_grad():
            mixer(one, state)

    clock = "cpu_ms" if device == "cpu" else "median_ms"
    ahead = timings(forward, device=device, repeats=repeats)
    return {
        "mixer": name,
        "parameters": sum(p.numel() for p in mixer.parameters()),
        "state_bytes": mixer.state_bytes() if mixer.constant_state else None,
        "forward_ms": ahead[clock],
        "forward_backward_ms": timings(both, device=device, repeats=repeats)[clock],
        "tokens_per_s": batch * time / ahead[clock] * 1e3,
        "step_ms": timings(step, device=device, repeats=repeats * 5)[clock],
    }


def stack_rows(device: str, repeats: int, compiled: bool) -> list[dict[str, Any]]:
    """One decoded frame through six GLA layers of width 256, with and without their feed-forwards."""
    rows = []
    for hidden in (0, None):
        net = build(256, 6, "gla", hidden=hidden).to(device).eval()
        x, state = torch.randn(1, 1, 256, device=device), net.init_state(1)
        forms: dict[str, Any] = {"eager": net}
        if compiled:
            torch.compiler.reset()
            forms["compiled"] = torch.compile(net, fullgraph=True)
        for form, run in forms.items():

            def step(run: Any = run, x: torch.Tensor = x, state: Any = state) -> None:
                with torch.no_grad():
                    run(x, state)

            for graph in (False, True) if device == "cuda" else (False,):
                took = timings(step, device=device, repeats=repeats * 20, graph=graph)
                rows.append({
                    "stack": "6 × GLA" + ("" if hidden == 0 else " + GLU"),
                    "form": form + (" graph" if graph else ""),
                    "parameters": sum(p.numel() for p in net.parameters()),
                    "state_bytes": net.state_bytes(),
                } | took)  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--time", type=int, default=500)
    parser.add_argument("--compile", action="store_true", help="also torch.compile the decoding step (minutes)")
    parser.add_argument("--out", type=Path, help="JSON; results/mixers_<device>.json by default")
    arguments = parser.parse_args()
    keep_freed_memory()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    result: dict[str, Any] = environment(arguments.device)
    result["mixers_shape"] = [arguments.batch, arguments.time, 256]
    result["mixers"] = [
        mixer_row(name, 256, arguments.batch, arguments.time, arguments.device, arguments.repeats) for name in names()
    ]
    result["decoding"] = stack_rows(arguments.device, arguments.repeats, arguments.compile)
    out = arguments.out or RESULTS / f"mixers_{arguments.device}.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print({name: value for name, value in result.items() if name not in ("mixers", "decoding")})
    print(table(result["mixers"]))
    print()
    print(table(result["decoding"]))


if __name__ == "__main__":
    main()
