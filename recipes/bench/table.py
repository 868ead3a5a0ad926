"""What every benchmark prints beside its numbers: where they were taken, how, and a table."""

from __future__ import annotations

import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence

import torch


def environment(device: str) -> dict[str, object]:
    """Device, versions and threads, for the head of a result file."""
    name = platform.processor() or platform.machine()
    if device == "cpu":
        try:
            with open("/proc/cpuinfo") as lines:
                name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
        except (OSError, StopIteration):  # not Linux, or an architecture that names no model
            pass
    else:
        name = torch.cuda.get_device_name()
    return {
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "load": _load(),
    }


def _load() -> float | None:
    """Runnable processes over the last minute: above the core count, other work disturbed the timings."""
    import os

    return round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None


def peak_bytes() -> int:
    """The most memory that this process has held.

    On Linux not `ru_maxrss`, which starts with what the process that started this one held.
    """
    if sys.platform.startswith("linux"):
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    import resource  # Unix alone has it

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def timings(run: Callable[[], object], *, device: str, repeats: int, graph: bool = False) -> dict[str, float]:
    """Milliseconds of `run` after a warm-up: median and minimum by the wall clock, and median CPU time on a CPU.

    The CPU time leaves out what other processes took from this one; it is the figure to compare on a shared machine.
    On CUDA, `graph` captures and replays one call.
    """
    run()
    if device == "cuda":
        if graph:
            torch.cuda.synchronize()
            captured = torch.cuda.CUDAGraph()
            with torch.cuda.graph(captured):
                run()
            run = captured.replay
        walls = []
        for _ in range(repeats):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            torch.cuda.synchronize()
            walls.append(begin.elapsed_time(end))
        return {"median_ms": statistics.median(walls), "min_ms": min(walls)}
    walls, works = [], []
    for _ in range(repeats):
        wall, work = time.perf_counter(), time.process_time()
        run()
        walls.append(1e3 * (time.perf_counter() - wall))
        works.append(1e3 * (time.process_time() - work))
    return {"median_ms": statistics.median(walls), "min_ms": min(walls), "cpu_ms": statistics.median(works)}


def table(rows: Sequence[dict[str, object]]) -> str:
    """Markdown, one column per key of the first row."""
    if not rows:
        return "(nothing measured)"
    keys = list(dict.fromkeys(key for row in rows for key in row))

    def cell(value: object) -> str:
        return "" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)

    lines = [keys, ["---"] * len(keys), *([cell(row.get(key)) for key in keys] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
