"""`vocode`: a recording through its mel and back (copy synthesis), or a stored mel to audio.

    vocode IN.wav -o OUT.wav
    vocode mel.npy -o OUT.wav --vocoder runs/kathleen-vocoder

Exit codes as synthesize: 2 usage, 3 bad input, 4 missing or broken voice or vocoder, 5 resources.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from melstate.vocoders.command import INPUT, MODEL, RESOURCES, Parser, Problem, run, set_threads

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from melstate.vocoders.mel import MelConfig
    from melstate.vocoders.vocoder import Vocoder

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")


def mel_blocks(audio: np.ndarray, config: MelConfig, frames: int) -> Iterator[Tensor]:
    """The log-mel (1, n_mels, ≤ frames) of a recording piece by piece, so that hours of it fit into memory.

    Each piece is computed with the frames around it that its windows touch; together they are `log_mel` of the whole.
    """
    import torch

    from melstate.vocoders.mel import log_mel

    total, margin = len(audio) // config.hop, -(-config.padding // config.hop)
    for start in range(0, total, frames):
        first, last = max(0, start - margin), min(total, start + frames + margin)
        end = len(audio) if last == total else last * config.hop
        block = log_mel(torch.from_numpy(audio[first * config.hop : end]), config)
        yield block[None, :, start - first : min(total, start + frames) - first]


def read_input(path: Path, config: MelConfig, frames: int) -> tuple[int, Iterator[Tensor]]:
    """Number of frames, and the log-mel in pieces, of a recording or of an .npy file (n_mels, T).

    Raises: Problem: unreadable, too short, or an array of another shape.
    """
    import numpy as np
    import torch

    from melstate.vocoders import wav

    try:
        if path.suffix.lower() != ".npy":
            audio, _ = wav.read(path, config.sample_rate)
            if len(audio) <= config.padding:
                raise ValueError(f"{path}: {len(audio)} samples are too few for one frame; need {config.padding + 1}")
            return len(audio) // config.hop, mel_blocks(audio, config, frames)
        mel = np.load(path, allow_pickle=False)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise Problem(INPUT, str(error) if str(path) in str(error) else f"{path}: {error}") from error
    if not isinstance(mel, np.ndarray) or mel.ndim != 2 or mel.shape[0] != config.n_mels or mel.dtype.kind != "f":
        found = f"{mel.dtype} {mel.shape}" if isinstance(mel, np.ndarray) else "an archive"
        raise Problem(INPUT, f"{path}: expected floats of shape ({config.n_mels}, frames), found {found}")
    whole = torch.from_numpy(mel.astype(np.float32))[None]
    return mel.shape[1], (whole[..., at : at + frames] for at in range(0, mel.shape[1], frames))


def load_vocoder(args: argparse.Namespace) -> Vocoder:
    """The vocoder of --vocoder or --voice. Raises: Problem."""
    try:
        if args.voice is None:
            from melstate.recipes.models import read_vocoder

            vocoder = read_vocoder(args.vocoder)
        else:
            from melstate.tts import Voice

            vocoder = Voice.load(args.voice).vocoder
    except (FileNotFoundError, ValueError) as error:
        raise Problem(MODEL, str(error)) from error
    return vocoder.for_inference(args.precision)


def copy(args: argparse.Namespace) -> None:
    from melstate.tts.audio import Writer

    set_threads(args.threads)
    if not args.output.parent.is_dir():
        raise Problem(RESOURCES, f"{args.output.parent}: no such folder to write to")
    vocoder = load_vocoder(args)
    config = vocoder.mel
    total, pieces = read_input(args.input, config, args.chunk)
    begun, state, done = time.perf_counter(), None, 0
    try:
        with Writer(args.output, config.sample_rate) as writer:
            for mel in pieces:
                done += mel.shape[2]
                audio, state = vocoder.stream(mel, state, final=done == total)
                writer.write(audio[0].numpy())
    except ValueError as error:
        raise Problem(INPUT, f"{args.input}: {error}") from error
    except OSError as error:
        raise Problem(RESOURCES, str(error)) from error
    spent, seconds = time.perf_counter() - begun, total * config.hop / config.sample_rate
    rate = f"{seconds / spent:.0f} × real time, " if total else ""
    print(f"{vocoder.kind}: {seconds:.2f} s of audio, {rate}{args.output}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    return run("vocode", lambda: copy(parse(argv)))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Raises Problem: a mistake in the arguments."""
    parser = Parser(prog="vocode", description="Recording or mel → audio, through a vocoder.")
    parser.add_argument("input", type=Path, metavar="IN", help="wav, flac, ogg or mp3; or .npy with a log-mel")
    parser.add_argument("-o", "--output", type=Path, required=True, metavar="OUT", help="wav, flac, ogg or mp3")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--vocoder",
        default="universal",
        metavar="NAME|PATH",
        help="a shipped vocoder, a checkpoint, a published generator or a run's folder (default universal)",
    )
    choice.add_argument("--voice", help="instead: the vocoder of a voice")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_threads()
    parser.add_argument("--chunk", type=int, default=512, metavar="N", help="frames at a time (default 512)")
    args = parser.parse_args(argv)
    if args.output.suffix.lower() not in SUFFIXES:
        parser.error(f"-o {args.output}: unknown suffix; use one of {', '.join(SUFFIXES)}")
    if args.chunk < 1:
        parser.error(f"--chunk must be at least 1, got {args.chunk}")
    return args


if __name__ == "__main__":
    sys.exit(main())
