"""How much of a recording survives a vocoder? Copy synthesis of prompts that training held out.

    python -m melstate.recipes.evaluate_vocoders ../shared/data/kathleen --voice kathleen --griffin-lim 60 \\
        --vocoder LJ_V2=hifigan/LJ_V2/generator_v2 --vocoder gan=runs/kathleen-vocoder-gan

Every recording's own log-mel goes through every vocoder; the copy is compared with the recording:

- mel L1: mean distance of the log-mels, nats.
- PESQ: wide-band, at 16 kHz (ITU-T P.862.2), 1 to 4.64; needs the package `pesq`, which compiles C.
- STOI: short-time objective intelligibility (Taal et al. 2011), 0 to 1; needs the package `pystoi`.
- WER: word error rate of an independent recogniser that reads the copy, with its 95 % interval over prompts.
- naturalness: mean opinion score predicted by NISQA-TTS, 1 to 5, with --nisqa; see melstate.recipes.naturalness.

The level of a copy and small delays do not matter to PESQ; phases matter to neither PESQ nor STOI.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn.functional import l1_loss

from melstate.recipes import naturalness, reader
from melstate.recipes.data.corpus import Utterance
from melstate.recipes.evaluate import Speak, choose, copy_with, recording
from melstate.recipes.models import read_vocoder
from melstate.tts.audio import Audio
from melstate.tts.voice import Voice
from melstate.vocoders import wav
from melstate.vocoders.mel import MelConfig, log_mel

Read = Callable[[np.ndarray, int], str]


@dataclass(frozen=True)
class Fidelity:
    """Means over prompts of one way to copy them; None where the package is missing or nothing was read."""

    name: str
    mel_l1: float
    pesq: float | None
    stoi: float | None
    wer: reader.Interval | None
    naturalness: reader.Interval | None = None


def griffin_lim(config: MelConfig, iterations: int) -> Speak:
    """Copies through the mel alone, without any learning: non-negative least squares, then phases by iteration.

    Source: Griffin & Lim 1984, with the momentum of Perraudin et al. 2013, as in librosa.
    """
    import librosa

    def speak(utterance: Utterance) -> Iterator[Audio]:
        audio, rate = wav.read(utterance.audio, config.sample_rate)
        mel = log_mel(torch.from_numpy(audio), config).exp().numpy()
        band = {"fmin": config.fmin, "fmax": config.fmax}
        magnitude = librosa.feature.inverse.mel_to_stft(mel, sr=rate, n_fft=config.n_fft, power=1.0, **band)
        made = librosa.griffinlim(magnitude, n_iter=iterations, hop_length=config.hop, random_state=0)
        # librosa's frame t is centred at t hops, the contract's half a hop later.
        yield Audio(np.pad(made, config.hop // 2), rate)

    return speak


def mel_distance(copy: np.ndarray, original: np.ndarray, config: MelConfig) -> float:
    """Mean absolute difference of the log-mels over the frames that both have."""
    pair = [log_mel(torch.from_numpy(np.ascontiguousarray(x)), config) for x in (copy, original)]
    frames = min(mel.shape[1] for mel in pair)
    return float(l1_loss(pair[0][:, :frames], pair[1][:, :frames]))


def perceptual_quality(copy: np.ndarray, original: np.ndarray, rate: int) -> float | None:
    """Wide-band PESQ of 16 kHz versions; None without the package."""
    if find_spec("pesq") is None:
        return None
    from pesq import pesq

    degraded, reference = (wav.resample(x, rate, 16000) for x in (copy, original))
    return float(pesq(16000, reference, degraded, "wb"))


def intelligibility(copy: np.ndarray, original: np.ndarray, rate: int) -> float | None:
    """STOI; None without the package."""
    if find_spec("pystoi") is None:
        return None
    from pystoi import stoi

    length = min(len(copy), len(original))
    return float(stoi(original[:length], copy[:length], rate))


def measure(
    name: str,
    speak: Speak,
    utterances: Sequence[Utterance],
    config: MelConfig,
    read: Read | None,
    keep: Path | None,
    nisqa: Path | None = None,
) -> Fidelity:
    """Copy and compare every prompt.

    Args:
        config: of the mels that are compared.
        read: the recogniser; None leaves word error rates out.
        keep: folder for the audio, <name>/<id>.wav.
        nisqa: checkout of the naturalness predictor, which reads what was kept; None leaves it out.
    """
    from rich.progress import track

    mel, quality, understood, transcripts = [], [], [], []
    for utterance in track(utterances, description=name, disable=not sys.stderr.isatty()):
        original, _ = wav.read(utterance.audio, config.sample_rate)
        said = Audio.join(list(speak(utterance)))
        made, rate = said.samples, said.sample_rate
        copy = wav.resample(made, rate, config.sample_rate)
        mel.append(mel_distance(copy, original, config))
        quality.append(perceptual_quality(copy, original, config.sample_rate))
        understood.append(intelligibility(copy, original, config.sample_rate))
        if read is not None:
            transcripts.append(read(made, rate))
        if keep is not None:
            (keep / name).mkdir(parents=True, exist_ok=True)
            wav.write(keep / name / f"{utterance.id}.wav", made, rate)
    wer = None
    if read is not None:
        wer = reader.word_error_rate(reader.score([utterance.text for utterance in utterances], transcripts))
    natural = None
    if nisqa is not None and keep is not None:
        scores = naturalness.predict(keep / name, nisqa)
        natural = naturalness.mean_with_interval([scores[f"{utterance.id}.wav"] for utterance in utterances])
    return Fidelity(name, float(np.mean(mel)), _mean(quality), _mean(understood), wer, natural)


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def table(copies: Sequence[Fidelity]) -> list[str]:
    """Markdown lines."""
    lines = ["| copy synthesis | mel L1 | PESQ | STOI | word error rate | naturalness |", "|---|---|---|---|---|---|"]
    for copy in copies:
        cells = [f"{copy.mel_l1:.3f}", _cell(copy.pesq, 2), _cell(copy.stoi, 3)]
        cells += [_spread(copy.wer, 3), _spread(copy.naturalness, 2)]
        lines.append(f"| {copy.name} | {' | '.join(cells)} |")
    return lines


def _cell(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _spread(interval: reader.Interval | None, digits: int) -> str:
    return "–" if interval is None else "{:.{d}f} [{:.{d}f}, {:.{d}f}]".format(*interval, d=digits)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="evaluate_vocoders", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("corpus", help="folder with metadata.csv and wavs/")
    add("--voice", help="measure the vocoder of a voice (a shipped one's name, or a folder)")
    add("--vocoder", action="append", default=[], metavar="NAME=PATH", help="a run's, a file, or a published generator")
    add("--griffin-lim", type=int, metavar="N", help="N iterations of Griffin-Lim, for comparison")
    add("--dev-prompts", type=int, default=40, help="prompts held out by training (default 40)")
    add("--split-seed", type=int, default=1, help="seed of that split (default 1, as in train.yaml)")
    add("--ids", help="a file of clip ids to use instead of the split")
    add("--limit", type=int, help="use only the first N prompts")
    add("--no-read", action="store_true", help="leave the recogniser out")
    add("--cache", default="runs/evaluate/transcripts.jsonl", help="transcripts by content; '' reads all anew")
    add("--keep", type=Path, help="folder to keep the audio in")
    add("--nisqa", type=Path, help="checkout of github.com/gabrielmittag/NISQA, to predict naturalness; needs --keep")
    add("--json", type=Path, metavar="FILE", help="write the figures")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    if args.nisqa and not args.keep:
        parser.error("--nisqa reads files: say where to keep them with --keep FOLDER")
    torch.set_num_threads(args.threads)
    config = MelConfig()
    ways: dict[str, Speak] = {"recordings": recording}
    try:
        utterances = choose(args.corpus, args.dev_prompts, args.split_seed, args.ids, args.limit)
        if args.griffin_lim:
            ways[f"Griffin-Lim, {args.griffin_lim} iterations"] = griffin_lim(config, args.griffin_lim)
        if args.voice:
            ways[f"the voice {args.voice}'s"] = copy_with(Voice.load(args.voice).vocoder)
        for given in args.vocoder:
            name, path = _named(given)
            ways[name] = copy_with(read_vocoder(path).for_inference())
    except (ValueError, OSError) as error:
        parser.error(str(error))
    read = None if args.no_read else reader.Reader(args.cache or None).read
    copies = [measure(name, speak, utterances, config, read, args.keep, args.nisqa) for name, speak in ways.items()]
    lines = table(copies)
    print("\n".join(lines))
    if args.json:
        about: dict[str, Any] = {"corpus": Path(args.corpus).name, "prompts": len(utterances), "table": lines}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", "utf-8")
    return 0


def _named(given: str) -> tuple[str, str]:
    """'NAME=PATH' → the two. Raises ValueError if it is not."""
    name, _, path = given.partition("=")
    if not name or not path:
        raise ValueError(f"expected NAME=PATH, got '{given}'")
    return name, path


if __name__ == "__main__":
    sys.exit(main())
