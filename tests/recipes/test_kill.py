"""kill −9 at random moments, checkpoint writing included: the run always resumes, and ends on the same weights."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from melstate.vocoders import checkpoint

SPEECH = Path(__file__).parents[1] / "speech"


def command(name, runs, cache):
    return [
        *(sys.executable, "-m", "melstate.recipes.train", "experiment=aligner", f"name={name}", f"runs_dir={runs}"),
        *("corpus=folder", f"corpus.folder={SPEECH}", "corpus.dev_prompts=2", f"data.cache={cache}"),
        *("data.batch_size=2", "threads=1", "progress=null", "trainer.accelerator=cpu", "trainer.max_steps=120"),
        *("ema=0.99", "checkpoint_minutes=0.001"),
    ]


@pytest.mark.slow
def test_a_run_killed_at_random_ends_on_the_same_weights(tmp_path, speech_cache):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(command("whole", tmp_path, speech_cache), check=True, env=environment, capture_output=True)
    rng = random.Random(1)
    last = tmp_path / "killed" / "last.ckpt"
    kills = 0
    for _ in range(200):
        process = subprocess.Popen(
            command("killed", tmp_path, speech_cache), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        stamp = last.stat().st_mtime_ns if last.is_file() else 0
        while process.poll() is None and (last.stat().st_mtime_ns if last.is_file() else 0) == stamp:
            time.sleep(0.002)
        try:
            process.wait(rng.uniform(0, 0.6))
        except subprocess.TimeoutExpired:
            process.kill()
            kills += 1
        output = process.communicate()[0].decode()
        assert process.returncode in (0, -9), output
        if process.returncode == 0:
            break
    assert kills >= 3, f"the run ended after {kills} kills"
    whole, killed = (checkpoint.read(tmp_path / name / "model.safetensors").tensors for name in ("whole", "killed"))
    assert whole.keys() == killed.keys()
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert not [path for path in last.parent.iterdir() if path.suffix == ".part" and path.stat().st_size == 0]
