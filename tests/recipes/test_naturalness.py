"""The predictor's program is called and read as its authors wrote it; here a stand-in with its options and its file."""

import numpy as np
import pytest

from melstate.recipes.naturalness import main, mean_with_interval, predict

PROGRAM = """
import argparse, csv, pathlib
p = argparse.ArgumentParser()
for name in ("mode", "pretrained_model", "data_dir", "output_dir", "num_workers", "bs"):
    p.add_argument("--" + name, required=True)
a = p.parse_args()
assert a.mode == "predict_dir" and pathlib.Path(a.pretrained_model).is_file()
with open(pathlib.Path(a.output_dir) / "NISQA_results.csv", "w", newline="") as f:
    w = csv.writer(f)
    w.writerow(["deg", "mos_pred", "model"])
    for path in sorted(pathlib.Path(a.data_dir).glob("*.wav")):
        w.writerow([path.name, path.stat().st_size, "NISQA-TTS"])
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "NISQA"
    (folder / "weights").mkdir(parents=True)
    (folder / "weights" / "nisqa_tts.tar").touch()
    (folder / "run_predict.py").write_text(PROGRAM)
    return folder


@pytest.fixture
def speech(tmp_path):
    folder = tmp_path / "a voice"
    folder.mkdir()
    for size in (2, 4):
        (folder / f"{size}.wav").write_bytes(b"x" * size)
    return folder


def test_scores_by_file_and_their_mean(checkout, speech, capsys):
    assert predict(speech, checkout) == {"2.wav": 2.0, "4.wav": 4.0}
    assert main([str(speech), "--nisqa", str(checkout)]) == 0
    assert capsys.readouterr().out == "a voice: 3.00 [2.00, 4.00]\n"


def test_what_is_missing_or_fails_is_said(checkout, speech, tmp_path):
    with pytest.raises(FileNotFoundError, match="no .wav"):
        predict(checkout, checkout)
    with pytest.raises(FileNotFoundError, match="checkout of"):
        predict(speech, tmp_path)
    (checkout / "run_predict.py").write_text("raise SystemExit('out of order')")
    with pytest.raises(RuntimeError, match="out of order"):
        predict(speech, checkout)
    with pytest.raises(SystemExit):
        main([str(speech), "--nisqa", str(tmp_path)])


def test_the_interval_covers_the_mean_as_often_as_it_says():
    rng = np.random.default_rng(1)
    covered = [found.low <= 3 <= found.high for found in (mean_with_interval(rng.normal(3, 1, 30)) for _ in range(200))]
    assert 0.88 < np.mean(covered) < 0.99
