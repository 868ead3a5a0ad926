"""`melstate train FOLDER --from VOICE`: a voice of one's own, from a folder of clips, in one command.

Runs the recipes in turn: align, train the acoustic model (from VOICE's weights), fine-tune the speaker-independent
vocoder, export, and give the voice the contrast of its recordings. Started again with the same name it goes on where it
stopped; stages already done are skipped. Arguments after `--` are hydra overrides for every stage
(`-- trainer.devices=2 data.batch_size=32`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import OmegaConf

from melstate.recipes import export, fit_contrast
from melstate.recipes.align import align_run
from melstate.recipes.train import train
from melstate.tts import manifest
from melstate.vocoders import checkpoint, shipped


def stage(experiment: str, overrides: Sequence[str]) -> Path:
    """Train one experiment unless its exported model has the steps it asks for; returns the run's folder."""
    from hydra import compose, initialize_config_module

    with initialize_config_module("melstate.recipes.configs", version_base="1.3"):
        config = compose("train", [f"experiment={experiment}", *overrides])
    folder = Path(config.run_dir)
    exported = folder / "model.safetensors"
    if exported.is_file() and checkpoint.read(exported).extra.get("steps", 0) >= config.trainer.max_steps:
        print(f"{exported}: done", file=sys.stderr)
    else:
        train(config)
    return folder


def train_voice(
    clips: str | Path,
    base: str | Path,
    name: str,
    *,
    aligner_steps: int = 2000,
    steps: int = 3000,
    vocoder_steps: int = 2000,
    runs: str | Path = "runs",
    overrides: Sequence[str] = (),
) -> tuple[Path, Path]:
    """Train both models of a voice; returns (acoustic run, vocoder run).

    Args:
        clips: folder in LJSpeech layout.
        base: a shipped voice's name or a voice folder, from whose weights the acoustic model starts.
        name: of the new voice.
        aligner_steps, steps, vocoder_steps: optimiser steps of the aligner, the acoustic model and the vocoder.
        runs: folder for caches and checkpoints.
        overrides: hydra overrides for every stage.
    Raises: ValueError, FileNotFoundError: no usable clips, no such voice, models that do not fit.
    """
    folder = manifest.find(base)
    about = manifest.read(folder)
    corpus = ["corpus=folder", f"corpus.folder={clips}", f"corpus.name={name}", f"runs_dir={runs}"]
    aligner = stage("aligner", [*corpus, f"trainer.max_steps={aligner_steps}", *overrides])
    if not (aligner / "durations.npz").is_file():
        align_run(aligner)
    model = about.models[about.choose()]
    start = f"init_from={folder / model.file}"
    acoustic = stage(model.kind, [*corpus, f"trainer.max_steps={steps}", start, *overrides])
    start = f"init_from={shipped.find('universal')}"
    vocoder = stage("vocoder_finetune", [*corpus, f"trainer.max_steps={vocoder_steps}", start, *overrides])
    return acoustic, vocoder


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="melstate train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("clips", metavar="FOLDER", help="metadata.csv (id|text) and wavs/ (wav or flac)")
    add("--from", dest="base", default="kathleen", metavar="VOICE", help="voice to start from (default kathleen)")
    add("--name", help="of the new voice, [a-z0-9_-]; the folder's name by default")
    add("-o", "--output", help="the voice's folder (default voices/NAME)")
    add("--licence", required=True, help="SPDX identifier of the new voice's licence")
    add("--licence-file", required=True, help="its text")
    add("--description", default="", help="one line about the voice")
    add("--aligner-steps", type=int, default=2000, help="of the aligner (default 2000)")
    add("--steps", type=int, default=3000, help="of the acoustic model (default 3000)")
    add("--vocoder-steps", type=int, default=2000, help="of the vocoder (default 2000)")
    add("--runs", default="runs", help="folder for caches and checkpoints (default runs)")
    argv = list(sys.argv[1:] if argv is None else argv)
    # argparse would take an optional list of positionals to be empty as soon as it meets FOLDER.
    own, overrides = (argv[: argv.index("--")], argv[argv.index("--") + 1 :]) if "--" in argv else (argv, [])
    given = parser.parse_args(own)
    name = given.name or Path(given.clips).resolve().name.lower()
    try:
        acoustic, vocoder = train_voice(
            given.clips,
            given.base,
            name,
            aligner_steps=given.aligner_steps,
            steps=given.steps,
            vocoder_steps=given.vocoder_steps,
            runs=given.runs,
            overrides=overrides,
        )
    except (ValueError, OSError) as error:
        print(f"train: {error}", file=sys.stderr)
        return 1
    folder = given.output or f"voices/{name}"
    code = export.main(
        [
            folder,
            *("--name", name, "--acoustic", str(acoustic), "--vocoder", str(vocoder)),
            *("--licence", given.licence, "--licence-file", given.licence_file),
            *("--description", given.description or f"A voice trained on {given.clips} from {given.base}."),
            *("--data", str(given.clips)),
        ]
    )
    if code:
        return code
    held_out = OmegaConf.load(acoustic / "config.yaml").corpus.dev_prompts
    return fit_contrast.main([folder, given.clips, "--dev-prompts", str(held_out)])


if __name__ == "__main__":
    sys.exit(main())
