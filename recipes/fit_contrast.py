"""Give a voice's acoustic model the contrast of its recordings: see melstate.tts.contrast.

    python -m melstate.recipes.fit_contrast tts/voices/kathleen ../shared/data/kathleen --model fastspeech

The model speaks prompts that it was trained on; how its mels vary is compared with how those of the recordings do. The
result is written into the voice's voice.yaml. It has to be done again when the model is replaced.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from melstate.recipes.data.corpus import Utterance, read_ljspeech
from melstate.recipes.data.split import split_by_prompt
from melstate.tts import manifest
from melstate.tts.acoustic import Controls
from melstate.tts.contrast import Contrast, cepstral_rows
from melstate.tts.voice import Voice
from melstate.tts.voice_folder import write_manifest
from melstate.vocoders import wav
from melstate.vocoders.mel import log_mel


def fit(
    spoken: Sequence[np.ndarray], recorded: Sequence[np.ndarray], *, coefficients: int = 30, amount: float = 1.5
) -> Contrast:
    """The contrast that brings what a model says to the spread of recordings, which need not be of the same sentences.

    Args:
        spoken, recorded: (n_mels, t) log-mels.
        coefficients: of the cepstrum to change, from the first on.
        amount: power of the ratios of spreads; 1 restores the recordings' spread.
    Raises: ValueError: no speech, or options out of range.
    """
    if not spoken or not recorded:
        raise ValueError("contrast: needs mels of the model and of recordings")
    bands = spoken[0].shape[0]
    if not 1 <= coefficients < bands or amount < 0:
        raise ValueError(f"contrast: need 1 <= coefficients < {bands} and amount >= 0, got {coefficients}, {amount:g}")
    frames = np.concatenate(list(recorded), axis=1)
    quiet = float(np.quantile(frames.mean(0), [0.05, 0.95]).mean())
    rows = cepstral_rows(bands)[1 : coefficients + 1].numpy()
    spread, means = [], []
    for mels in (frames, np.concatenate(list(spoken), axis=1)):
        cepstra = rows @ mels[:, mels.mean(0) > quiet].astype(np.float64)
        if cepstra.shape[1] < 100:
            raise ValueError(f"contrast: only {cepstra.shape[1]} frames of speech; give more sentences")
        spread.append(cepstra.std(1))
        means.append(cepstra.mean(1))
    gains = np.clip((spread[0] / np.maximum(spread[1], 1e-6)) ** amount, 0.5, 4.0)
    return Contrast(_rounded(gains), _rounded(means[1]), round(quiet, 3))


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)


def spoken_mels(voice: Voice, text: str, seed: int) -> list[np.ndarray]:
    """What the acoustic model alone makes of every sentence: (n_mels, t) log-mels."""
    mels = []
    for sentence in voice.front_end.sentences(text):
        if sentence.words:
            generator = torch.Generator().manual_seed(seed)
            with torch.inference_mode():
                frames = list(voice.acoustic.stream(sentence.ids, controls=Controls(), generator=generator))
            mels.append(torch.cat([part.mel for part in frames], dim=1).float().numpy())
    return mels


def measure(voice: Voice, utterances: Sequence[Utterance], *, coefficients: int, amount: float) -> Contrast:
    """The contrast between what the voice's model says and the recordings of the same prompts."""
    from rich.progress import track

    spoken, recorded = [], []
    for number, utterance in enumerate(track(utterances, description="speaking", disable=not sys.stderr.isatty())):
        spoken += spoken_mels(voice, utterance.text, number)
        audio, _ = wav.read(utterance.audio, voice.sample_rate)
        recorded.append(log_mel(torch.from_numpy(audio), voice.acoustic.mel).numpy())
    return fit(spoken, recorded, coefficients=coefficients, amount=amount)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="fit_contrast", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("folder", help="the voice's folder")
    add("corpus", help="the folder of its recordings, with metadata.csv and wavs/")
    add("--model", help="which of the voice's models; its default if not given")
    add("--amount", type=float, default=1.5, help="1 restores the recordings' spread, 0 takes the contrast away")
    add("--coefficients", type=int, default=30, help="of the mel cepstrum to change")
    add("--prompts", type=int, default=150, help="training prompts to compare")
    add("--dev-prompts", type=int, default=40, help="prompts held out by training, which are not looked at")
    add("--split-seed", type=int, default=1, help="seed of that split (default 1, as in train.yaml)")
    add("--threads", type=int, default=1)
    args = parser.parse_args(argv)
    torch.set_num_threads(args.threads)
    try:
        folder = manifest.find(Path(args.folder))
        about = manifest.read(folder)
        name = about.choose(args.model)
        contrast = None
        if args.amount:
            train, _ = split_by_prompt(read_ljspeech(args.corpus).utterances, args.dev_prompts, args.split_seed)
            chosen = train[:: max(1, len(train) // args.prompts)][: args.prompts]
            voice = Voice.load(folder, model=name)
            contrast = measure(voice, chosen, coefficients=args.coefficients, amount=args.amount)
        models = {**about.models, name: replace(about.models[name], contrast=contrast)}
        write_manifest(folder, replace(about, models=models))
    except (ValueError, OSError) as error:
        parser.error(str(error))
    if contrast is None:
        print(f"{folder}: model '{name}' speaks without contrast")
    else:
        gains = ", ".join(f"{gain:.2f}" for gain in contrast.gains[:: max(1, len(contrast.gains) // 6)])
        print(f"{folder}: model '{name}', gains {gains}, quiet below {contrast.quiet:g}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
