"""How fast are the vocoders? Real-time factor, latency by chunk size and multiply-adds, beside the authors' code.

    python -m melstate.recipes.bench.vocoders --threads 2 --authors /path/to/hifi-gan --json results.json

Weights are random: speed does not depend on them. --authors is a folder with HiFi-GAN's models.py, run eagerly on the
whole utterance; without it there is no baseline. Processor time stands beside wall time: on a shared machine wall time
says more of the others. The machine's ceiling is that of a large matrix product in the same run; a vocoder's
multiply-adds over it is the real-time factor that nothing on this machine goes below.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from melstate.vocoders.convolutional import ConvolutionalVocoder
from melstate.vocoders.hifigan import V1, V2, V3, HiFiGAN, ISTFTNet
from melstate.vocoders.istft import Vocos
from melstate.vocoders.melgan import MelGAN
from melstate.vocoders.source_filter import SourceFilter
from melstate.vocoders.tiles import TiledVocoder

VOCODERS: dict[str, Callable[[], TiledVocoder]] = {
    "hifigan V1": HiFiGAN,
    "hifigan V2": lambda: HiFiGAN(**V2),
    "hifigan V3": lambda: HiFiGAN(**V3),
    "istftnet": ISTFTNet,
    "melgan": MelGAN,
    "multi-band melgan": lambda: MelGAN(channels=384, strides=(8, 4, 2), stacks=4, bands=4),
    "vocos 512x8": Vocos,
    "vocos 256x6": lambda: Vocos(dim=256, layers=6),
    "source_filter": SourceFilter,
    "source_filter, 4 corrections": lambda: SourceFilter(flat_noise=True, corrections=4),
}
PUBLISHED = {"hifigan V1": V1, "hifigan V2": V2, "hifigan V3": V3}


def timed(call: Callable[[], Any], runs: int) -> dict[str, float]:
    """Median seconds, wall and processor, after one warm-up."""
    call()
    wall, processor = [], []
    for _ in range(runs):
        begun = time.perf_counter(), time.process_time()
        call()
        wall.append(time.perf_counter() - begun[0])
        processor.append(time.process_time() - begun[1])
    return {"wall": statistics.median(wall), "processor": statistics.median(processor)}


def ceiling(dtype: torch.dtype, runs: int) -> dict[str, float]:
    """GFLOP/s of a 1024³ matrix product, wall and processor."""
    size = 1024
    a, b = (torch.randn(size, size).to(dtype) for _ in range(2))
    return {clock: 2e-9 * size**3 / seconds for clock, seconds in timed(lambda: a @ b, 4 * runs).items()}


def authors_generator(folder: Path, options: dict[str, Any]) -> torch.nn.Module:
    """The published class with the same sizes, in eval mode, weight normalisation removed as their inference does."""
    spec = importlib.util.spec_from_file_location("authors_models", folder / "models.py")
    if spec is None or spec.loader is None or not (folder / "models.py").is_file():
        raise FileNotFoundError(f"{folder}: no models.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = HiFiGAN(**options, weight_norm=False).config
    settings = SimpleNamespace(
        resblock="1" if config["paired"] else "2",
        upsample_rates=config["strides"],
        upsample_kernel_sizes=[2 * stride for stride in config["strides"]],
        upsample_initial_channel=config["channels"],
        resblock_kernel_sizes=config["kernels"],
        resblock_dilation_sizes=config["dilations"],
    )
    generator = module.Generator(settings).eval()
    generator.remove_weight_norm()
    return generator


def latency(vocoder: TiledVocoder, mel: Tensor, chunk: int, runs: int) -> dict[str, float]:
    """Milliseconds to the first sound when `chunk` frames come at a time and cost nothing, and the real-time factor."""
    firsts, factors = [], []
    for _ in range(runs):
        begun, first, state, samples = time.perf_counter(), 0.0, None, 0
        for at in range(0, mel.shape[2], chunk):
            audio, state = vocoder.stream(mel[..., at : at + chunk], state, final=at + chunk >= mel.shape[2])
            samples += audio.shape[1]
            if samples and not first:
                first = time.perf_counter() - begun
        factors.append((time.perf_counter() - begun) * vocoder.mel.sample_rate / samples)
        firsts.append(1000 * first)
    return {"first_sound_ms": statistics.median(firsts), "real_time_factor": statistics.median(factors)}


@torch.no_grad()
def measure(name: str, seconds: float, chunks: Sequence[int], runs: int, authors: Path | None) -> dict[str, Any]:
    """Figures of one vocoder, fp32 and, where it has it, bf16."""
    torch.manual_seed(0)
    vocoder = VOCODERS[name]().eval()
    frames = round(seconds * vocoder.mel.sample_rate / vocoder.mel.hop)
    mel = -4 + 1.5 * torch.randn(1, vocoder.mel.n_mels, frames)
    seconds = frames * vocoder.mel.hop / vocoder.mel.sample_rate
    with FlopCounterMode(display=False) as counter:
        vocoder(mel)
    figures: dict[str, Any] = {
        "parameters": sum(p.numel() for p in vocoder.parameters()),
        "gmac_per_second": counter.get_total_flops() / 2e9 / seconds,
        "look_ahead_ms": 1000 * vocoder.delay(vocoder.mel.n_mels) / vocoder.mel.sample_rate,
    }
    versions: dict[str, TiledVocoder] = {"fp32": vocoder}
    if isinstance(vocoder, ConvolutionalVocoder):
        versions = {precision: vocoder.for_inference(precision) for precision in ("fp32", "bf16")}
    if name in PUBLISHED and authors is not None:
        theirs = authors_generator(authors, PUBLISHED[name])
        figures["authors"] = {k: v / seconds for k, v in timed(lambda: theirs(mel), runs).items()}
    for precision, version in versions.items():
        figures[precision] = {k: v / seconds for k, v in timed(lambda v=version: v(mel), runs).items()}  # type: ignore[misc]
    short = mel[..., :172]
    figures["chunks"] = {chunk: latency(versions["fp32"], short, chunk, max(1, runs // 2)) for chunk in chunks}
    return figures


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="melstate.recipes.bench.vocoders", description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--vocoders", nargs="+", choices=list(VOCODERS), default=list(VOCODERS))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="of audio a run")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--chunks", type=int, nargs="+", default=[4, 8, 32], help="frames at a time")
    parser.add_argument("--authors", type=Path, help="folder with HiFi-GAN's models.py")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    about = {
        "machine": platform.processor() or platform.machine(),
        "torch": torch.__version__,
        "threads": args.threads,
        "load": os.getloadavg()[0],
    }
    print(f"{about}, {args.seconds:g} s of audio, median of {args.runs} runs; real-time factors, wall (processor)")
    results: dict[str, Any] = {"about": about}
    results["ceiling"] = {str(t).removeprefix("torch."): ceiling(t, args.runs) for t in (torch.float32, torch.bfloat16)}
    for dtype, found in results["ceiling"].items():
        print(f"ceiling {dtype}: {found['wall']:.0f} GFLOP/s ({found['processor']:.0f} a processor second)")
    for name in args.vocoders:
        results[name] = found = measure(name, args.seconds, args.chunks, args.runs, args.authors)
        parts = [f"{name:<28}{found['parameters'] / 1e6:6.2f} M {found['gmac_per_second']:6.2f} GMAC/s"]
        parts += [
            f"{key} {found[key]['wall']:.4f} ({found[key]['processor']:.4f})"
            for key in ("authors", "fp32", "bf16")
            if key in found
        ]
        parts.append(f"look-ahead {found['look_ahead_ms']:.0f} ms")
        parts += [f"{c}: {v['first_sound_ms']:.0f} ms, {v['real_time_factor']:.3f}" for c, v in found["chunks"].items()]
        print(" | ".join(parts), flush=True)
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
