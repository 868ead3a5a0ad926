import re
from pathlib import Path

import numpy as np
import pytest
import torch

from melstate.recipes.vocode import main, mel_blocks
from melstate.vocoders import shipped, wav
from melstate.vocoders.checkpoint import save
from melstate.vocoders.hifigan import HiFiGAN
from melstate.vocoders.mel import MelConfig, log_mel
from melstate.vocoders.source_filter import SourceFilter

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.fixture(scope="module")
def recording():
    generator = np.random.default_rng(0)
    return (0.1 * generator.standard_normal(22050)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory, recording):
    place = tmp_path_factory.mktemp("vocode")
    torch.manual_seed(0)
    save(place / "sf.safetensors", SourceFilter(dim=16, layers=1, pitch_dim=16, pitch_layers=1))
    save(place / "hifi.safetensors", HiFiGAN(channels=16))
    wav.write(place / "in.wav", recording, 22050)
    np.save(place / "mel.npy", log_mel(torch.from_numpy(recording), MelConfig()).numpy())
    np.save(place / "wrong.npy", np.zeros((40, 10), np.float32))
    np.save(place / "nan.npy", np.full((80, 10), np.nan, np.float32))
    np.save(place / "objects.npy", np.array([{}], dtype=object))
    wav.write(place / "short.wav", recording[:300], 22050)
    return place


@pytest.mark.parametrize("frames", [1, 7, 40, 1000])
def test_blocks_are_the_mel_of_the_whole(recording, frames):
    whole = log_mel(torch.from_numpy(recording), MelConfig())
    blocks = torch.cat(list(mel_blocks(recording, MelConfig(), frames)), 2)[0]
    torch.testing.assert_close(blocks, whole, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", ["sf", "hifi"])
def test_recordings_and_mels_become_audio(folder, name, capsys):
    for source in ("in.wav", "mel.npy"):
        out = folder / f"{name}-{source}.wav"
        model = folder / f"{name}.safetensors"
        assert main([str(folder / source), "-o", str(out), "--vocoder", str(model), "--chunk", "13"]) == 0
        audio, rate = wav.read(out)
        assert rate == 22050 and len(audio) == 86 * 256
    assert "1.00 s of audio" in capsys.readouterr().out


def test_the_shipped_vocoder_copies_any_speech_unless_another_is_asked_for(tmp_path, capsys):
    """A copy comes back close to its own mel; a path is never taken for a name."""
    source = SPEECH / "wavs" / "arctic_a0098_1592746262.flac"
    assert main([str(source), "-o", str(tmp_path / "copy.wav")]) == 0
    copy, original = (torch.from_numpy(wav.read(path, 22050)[0]) for path in (tmp_path / "copy.wav", source))
    mels = [log_mel(audio[: len(copy)], MelConfig()) for audio in (copy, original)]
    assert float((mels[0] - mels[1]).abs().mean()) < 0.15
    assert "universal" in shipped.names() and shipped.find("universal").is_file()
    assert shipped.find("./universal") == Path("universal") and shipped.find(Path("universal")) == Path("universal")
    assert main([str(source), "-o", str(tmp_path / "a.wav"), "--vocoder", "./universal"]) == 4
    assert main([str(source), "-o", str(tmp_path / "a.wav"), "--voice", "kathleen"]) == 0


@pytest.mark.parametrize("name", ["hifi", "sf"])
def test_precision(folder, name):
    audio = []
    for precision in ("fp32", "bf16"):
        out = folder / f"{name}-{precision}.wav"
        model = str(folder / f"{name}.safetensors")
        options = ["--precision", precision, "--vocoder", model]
        assert main([str(folder / "in.wav"), "-o", str(out), *options]) == 0
        audio.append(wav.read(out)[0])
    assert not np.array_equal(*audio)
    np.testing.assert_allclose(*audio, atol=0.01 * np.abs(audio[0]).max() + 2 / 32768)


@pytest.mark.parametrize(
    ("source", "model", "out", "code", "message"),
    [
        ("missing.wav", "sf", "a.wav", 3, "no such file"),
        ("short.wav", "sf", "a.wav", 3, "300 samples are too few"),
        ("wrong.npy", "sf", "a.wav", 3, r"shape \(80, frames\)"),
        ("nan.npy", "sf", "a.wav", 3, "NaN or infinity at frame 0"),
        ("objects.npy", "sf", "a.wav", 3, "allow_pickle"),
        ("in.wav", "none", "a.wav", 4, "no such checkpoint"),
        ("in.wav", "sf", "none/a.wav", 5, "no such folder"),
    ],
)
def test_faults_are_one_line_and_a_code(folder, source, model, out, code, message, capsys):
    arguments = [str(folder / source), "-o", str(folder / out), "--vocoder", str(folder / f"{model}.safetensors")]
    assert main(arguments) == code
    error = capsys.readouterr().err
    assert error.startswith("vocode: ") and error.count("\n") == 1
    assert re.search(message, error)
    assert not (folder / "a.wav").exists()


def test_usage(folder, capsys):
    for extra in (["-o", "a.txt"], ["-o", "a.wav", "--chunk", "0"], []):
        assert main([str(folder / "in.wav"), *extra]) == 2
        assert "see vocode --help" in capsys.readouterr().err
