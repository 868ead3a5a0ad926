"""`melstate train`: from six clips and the shipped voice to a voice folder that speaks."""

from pathlib import Path

import pytest

from melstate.recipes import train_voice
from melstate.tts import Voice

SPEECH = Path(__file__).parents[1] / "speech"
OVERRIDES = (
    *("corpus.dev_prompts=2", "data.batch_size=2", "threads=1", "progress=null", "trainer.accelerator=cpu"),
    *("task.warmup=1", "trainer.val_check_interval=1000", "trainer.precision=32-true"),
)


def arguments(tmp_path, cache, clips=SPEECH):
    return [
        *(str(clips), "--from", "kathleen", "--name", "mine", "-o", str(tmp_path / "mine")),
        *("--licence", "CC0-1.0", "--licence-file", str(SPEECH / "LICENSE"), "--runs", str(tmp_path / "runs")),
        *("--aligner-steps", "2", "--steps", "2", "--vocoder-steps", "2"),
        *("--", *OVERRIDES, f"data.cache={cache}", "ema=0"),
    ]


def test_six_clips_become_a_voice_and_a_second_call_trains_nothing(tmp_path, speech_cache, capsys):
    assert train_voice.main(arguments(tmp_path, speech_cache)) == 0
    voice = Voice.load(tmp_path / "mine")
    assert 0.2 < voice.synthesize("Hello.").seconds < 3
    assert voice.contrast is not None
    checkpoints = sorted((tmp_path / "runs").glob("*/last.ckpt"))
    stamps = [path.stat().st_mtime_ns for path in checkpoints]
    assert len(checkpoints) == 3
    assert train_voice.main(arguments(tmp_path, speech_cache)) == 0
    assert [path.stat().st_mtime_ns for path in checkpoints] == stamps
    assert capsys.readouterr().err.count(": done") == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [(["--from", "nobody"], "unknown; shipped voices: kathleen"), ([], "metadata.csv: no such file")],
)
def test_what_is_missing_is_one_line(tmp_path, speech_cache, capsys, change, message):
    given = arguments(tmp_path, speech_cache, clips=tmp_path if not change else SPEECH)
    if change:
        given[given.index("--from") + 1] = change[1]
    assert train_voice.main(given) == 1
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("train: ") and message in error
