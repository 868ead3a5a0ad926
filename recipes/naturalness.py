"""Naturalness of speech as a trained listener model predicts it: NISQA-TTS, run from its authors' repository.

Neither the code nor the weights (CC BY-NC-SA 4.0) are part of this project:

    git clone https://github.com/gabrielmittag/NISQA && pip install pandas
    python -m melstate.recipes.naturalness FOLDER [FOLDER …] --nisqa NISQA

Source: Mittag & Möller 2020, "Deep Learning Based Assessment of Synthetic Speech Naturalness" (arXiv:2104.11673).
"""

from __future__ import annotations

import argparse
import csv
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from melstate.recipes.reader import Interval


def predict(folder: str | Path, nisqa: str | Path) -> dict[str, float]:
    """Mean opinion score, 1 to 5, by file name of every .wav in a folder.

    Args:
        nisqa: a checkout of the authors' repository.
    Raises:
        FileNotFoundError: no .wav in the folder, or no such checkout.
        RuntimeError: their program failed; the message ends with what it said.
    """
    folder, nisqa = Path(folder).resolve(), Path(nisqa).resolve()
    if not any(folder.glob("*.wav")):
        raise FileNotFoundError(f"{folder}: no .wav files")
    program, weights = nisqa / "run_predict.py", nisqa / "weights" / "nisqa_tts.tar"
    for needed in (program, weights):
        if not needed.is_file():
            raise FileNotFoundError(f"{needed}: not found; --nisqa names a checkout of github.com/gabrielmittag/NISQA")
    with tempfile.TemporaryDirectory() as results:
        options = {"mode": "predict_dir", "pretrained_model": weights, "data_dir": folder, "output_dir": results}
        command = [sys.executable, str(program), *(f"--{key}={value}" for key, value in options.items())]
        done = subprocess.run([*command, "--num_workers=0", "--bs=1"], cwd=nisqa, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"NISQA ended with status {done.returncode}: {done.stderr.strip()[-500:]}")
        with (Path(results) / "NISQA_results.csv").open(newline="", encoding="utf-8") as stream:
            return {Path(row["deg"]).name: float(row["mos_pred"]) for row in csv.DictReader(stream)}


def mean_with_interval(scores: Sequence[float], draws: int = 2000) -> Interval:
    """Mean and its 95 % bootstrap interval over files."""
    values = np.asarray(scores, np.float64)
    means = values[np.random.default_rng(0).integers(0, len(values), (draws, len(values)))].mean(1)
    return Interval(float(values.mean()), *(float(q) for q in np.quantile(means, [0.025, 0.975])))


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="naturalness", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folders", nargs="+", type=Path, metavar="FOLDER", help="of .wav files, one way to speak each")
    parser.add_argument("--nisqa", type=Path, required=True, help="checkout of github.com/gabrielmittag/NISQA")
    args = parser.parse_args(argv)
    try:
        for folder in args.folders:
            score = mean_with_interval(list(predict(folder, args.nisqa).values()))
            print(f"{folder.name}: {score.value:.2f} [{score.low:.2f}, {score.high:.2f}]", flush=True)
    except (OSError, RuntimeError) as error:
        parser.error(str(error))
    return 0


if __name__ == "__main__":
    sys.exit(main())
