"""`synthesize`: what it writes, what it says, and how it fails: one line and an exit code, never a traceback."""

import json
import os
import resource
import subprocess
import sys
import types
import warnings
from pathlib import Path

import numpy as np
import pytest
import tiny_voice
import torch
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import melstate.tts.text
from melstate.tts import cli, manifest
from melstate.tts.acoustic import Controls, Frames
from melstate.tts.arguments import RANGES
from melstate.tts.text.characters import TextWarning
from melstate.tts.voice_folder import add_model
from melstate.vocoders import wav


@pytest.fixture(scope="module")
def voices(tmp_path_factory):
    folder = tmp_path_factory.mktemp("voices")
    tiny_voice.tiny_voice().save(folder / "tiny")
    return folder


@pytest.fixture
def here(voices, tiny_kinds, monkeypatch, tmp_path):
    """An empty working folder, the tiny voice shipped as the only one."""
    monkeypatch.setattr(manifest, "SHIPPED", voices)
    monkeypatch.setattr(melstate.tts.text, "FrontEnd", lambda lexicon=None: tiny_voice.TinyFrontEnd())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def run(here, capfdbinary):
    """Run the command: (exit code, standard output, standard error)."""

    def run(*args, voice="tiny"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("torch.set_num_threads", lambda count: None)
            code = cli.main([*args] if voice is None else ["--voice", voice, *args])
        out, err = capfdbinary.readouterr()
        return code, out, err.decode()

    return run


def expected(text, **controls):
    return tiny_voice.tiny_voice().synthesize(text, **controls).samples


def read(path):
    return wav.read(path)[0]


def fails(result, code, message):
    """One line, the code, and nothing on standard output."""
    got, out, err = result
    assert (got, out) == (code, b""), err
    assert err.startswith("synthesize: ") and err.count("\n") == 1 and "Traceback" not in err
    assert message in err


def test_names_the_file_after_the_text(run, here):
    code, out, err = run("Hello, world.")
    assert (code, err) == (0, "")
    assert np.abs(read(here / "hello-world.wav") - expected("Hello, world.")).max() < 0.05
    fields = out.decode().strip().split(" · ")
    assert fields[0] == "tiny (CC0-1.0)" and fields[1].endswith(" s of speech")
    assert fields[2].startswith("first sound ") and fields[3].endswith("x real time → hello-world.wav")
    assert sorted(os.listdir(here)) == ["hello-world.wav"]


def test_default_names_never_replace(run, here):
    for _ in range(3):
        assert run("Hello, world.")[0] == 0
    assert sorted(os.listdir(here)) == ["hello-world-2.wav", "hello-world-3.wav", "hello-world.wav"]


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Hello, world.", "hello-world.wav"),
        ("../../etc/passwd", "etc-passwd.wav"),
        ("Élan vital!", "elan-vital.wav"),
        ("مرحبا", "speech.wav"),
        ("😀\0\ud800", "speech.wav"),
        ("word " * 100, "word-word-word-word-word-word-word-word.wav"),
        ("x" * 500, "speech.wav"),
    ],
)
def test_default_names(here, text, name):
    assert cli.default_name(text) == Path(name)


@given(text=st.text(max_size=80))
def test_default_names_are_always_plain(text):
    assert set(cli.default_name(text).name) <= set("abcdefghijklmnopqrstuvwxyz0123456789-.")


def test_controls_reach_the_voice(run, here):
    flags = "--speed 1.5 --pitch 2 --energy -3 --pause 0.5 --variation 0.5 --seed 4 -o x.wav".split()
    assert run("Hello. World.", *flags)[0] == 0
    same = expected("Hello. World.", speed=1.5, pitch=2.0, energy=-3.0, pause=0.5, variation=0.5, seed=4)
    assert np.abs(read(here / "x.wav") - same).max() < 0.05
    assert len(read(here / "x.wav")) == len(same) != len(expected("Hello. World."))


def test_ranges_are_those_of_the_controls():
    for name, (low, high) in RANGES.items():
        Controls(**{name: low}), Controls(**{name: high})
        for bad in (low - 0.01, high + 0.01):
            with pytest.raises(ValueError, match=name):
                Controls(**{name: bad})


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_suffix_picks_the_format(run, here, suffix):
    code, out, _ = run("Hello there.", "-o", f"x.{suffix}")
    assert code == 0 and out.decode().endswith(f"→ x.{suffix}\n")
    magic = {"wav": b"RIFF", "flac": b"fLaC", "ogg": b"OggS", "mp3": b"\xff"}[suffix]
    assert (here / f"x.{suffix}").read_bytes().startswith(magic)
    assert len(read(here / f"x.{suffix}")) >= 22050 * 0.3


def test_a_named_file_is_replaced(run, here):
    (here / "x.wav").write_bytes(b"old")
    assert run("Hello there.", "-o", "x.wav")[0] == 0
    assert (here / "x.wav").read_bytes().startswith(b"RIFF")


def test_raw_audio_on_standard_output(run, here):
    code, out, err = run("Hello there. World.", "-o", "-")
    assert code == 0 and os.listdir(here) == []
    assert np.abs(np.frombuffer(out, "<i2") / 32767 - expected("Hello there. World.")).max() < 0.05
    assert err.startswith("tiny (CC0-1.0) · ") and err.endswith("→ standard output\n")


def test_text_from_file_and_standard_input(run, here, monkeypatch):
    (here / "book.txt").write_bytes("\ufeffHello there.".encode())
    assert run("-f", "book.txt", "-o", "a.wav")[0] == 0
    monkeypatch.setattr(sys, "stdin", types.SimpleNamespace(buffer=(here / "book.txt").open("rb")))
    assert run("-", "-o", "b.wav")[0] == 0
    assert (here / "a.wav").read_bytes() == (here / "b.wav").read_bytes()


def test_json_tells_all(run, here):
    code, out, _ = run("Hello there. World.", "--json", "-o", "x.flac")
    report = json.loads(out)
    assert code == 0 and report["file"] == "x.flac" and report["voice"] == "tiny" and report["licence"] == "CC0-1.0"
    assert report["samples"] == len(read(here / "x.flac")) and report["sample_rate"] == 22050
    assert report["seconds"] == pytest.approx(report["samples"] / 22050, abs=1e-3)
    assert [word["text"] for word in report["words"]] == ["hello", "there", "world"]
    assert report["phones"][0]["text"] == "^" and report["phones"][-1]["end"] == pytest.approx(
        report["seconds"], abs=1e-3
    )
    assert report["first_sound_seconds"] > 0 and report["times_real_time"] > 0


def test_timestamps_are_written_beside_the_speech(run, here):
    assert run("Hello there. World.", "--timestamps", "x.json", "-o", "x.wav")[0] == 0
    found = json.loads((here / "x.json").read_text())
    assert found["samples"] == len(read(here / "x.wav")) and found["coverage"]["complete"]
    assert (found["voice"], found["model"], len(found["sentences"])) == ("tiny", "tiny_acoustic", 2)
    assert run("Hello there. World.", "--timestamps", "x.srt", "-o", "-")[0] == 0
    assert (here / "x.srt").read_text().startswith("1\n00:00:00,") and "Hello there." in (here / "x.srt").read_text()
    assert sorted(os.listdir(here)) == ["x.json", "x.srt", "x.wav"]


def test_phones_that_a_model_leaves_out_are_a_warning_and_in_the_report(run, here, monkeypatch):
    def skips(self, phones, **options):
        mel = torch.zeros(80, 6)
        yield Frames(mel, None, torch.tensor([0, 1, 1, 3, 4, 5]))

    monkeypatch.setattr(tiny_voice.TinyAcoustic, "stream", skips)
    code, out, err = run("hello", "-o", "x.wav", "--json")
    assert code == 0 and err == "synthesize: warning: 'hello': 4 of 5 phones were spoken\n"
    report = json.loads(out)
    assert report["coverage"]["share"] == 0.8 and not report["coverage"]["complete"] and len(report["warnings"]) == 1


def test_plot_draws_a_picture(run, here):
    assert run("Hi.", "--plot", "x.png", "-o", "x.wav")[0] == 0
    assert (here / "x.png").read_bytes().startswith(b"\x89PNG")
    from PIL import Image

    assert np.asarray(Image.open(here / "x.png").convert("L")).std() > 5
    assert sorted(os.listdir(here)) == ["x.png", "x.wav"]


def test_list_voices(run):
    assert run("--list-voices", voice=None) == (0, b"tiny  en-US  CC0-1.0  untrained, for tests\n", "")
    code, out, _ = run("--list-voices", "--json", voice=None)
    assert code == 0 and json.loads(out)[0]["name"] == "tiny" and json.loads(out)[0]["models"] == ["tiny_acoustic"]


def test_model_picks_one_of_the_voices_models(run, here):
    tiny_voice.tiny_voice().save(here / "mine")
    other = tiny_voice.TinyAcoustic()
    torch.nn.init.constant_(other.embedding.weight, -5.0)
    add_model(here / "mine", other, "other")
    code, out, _ = run("Hello.", "-o", "x.wav", voice="./mine")
    assert code == 0 and out.startswith(b"tiny (CC0-1.0)")
    code, out, _ = run("Hello.", "-o", "y.wav", "--model", "other", voice="./mine")
    assert code == 0 and out.startswith(b"tiny other (CC0-1.0)")
    assert np.abs(read(here / "x.wav") - read(here / "y.wav")).max() > 1e-3
    code, out, _ = run("Hello.", "-o", "y.wav", "--model", "other", "--json", voice="./mine")
    assert json.loads(out)["model"] == "other"
    fails(
        run("Hello.", "--model", "lina", voice="./mine"),
        4,
        "has no model 'lina'; its models: tiny_acoustic (default), other",
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "SHIPPED", here)
        assert run("--list-voices", voice=None)[1].endswith(b"(models: tiny_acoustic, other)\n")


def test_version_and_help(capsys):
    for flag, start in (("--version", "melstate "), ("--help", "usage: synthesize ")):
        with pytest.raises(SystemExit) as caught:
            cli.main([flag])
        assert caught.value.code == 0
        assert capsys.readouterr().out.startswith(start)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to speak: give TEXT"),
        (["a", "b"], "unrecognized arguments: b"),
        (["a", "-f", "x"], "not both"),
        (["a", "--speed", "0"], "0 is not in 0.25 to 4"),
        (["a", "--speed", "nan"], "nan is not in"),
        (["a", "--speed", "fast"], "'fast' is not a number"),
        (["a", "--pitch", "99"], "--pitch"),
        (["a", "--seed", "-1"], "--seed"),
        (["a", "--rate-sd", "9"], "--rate-sd: 9 is not in -3 to 3"),
        (["a", "--rate-sd", "1"], "its model 'tiny_acoustic' has not learned rate_sd"),
        (["a", "--seed", "1e3"], "not a whole number"),
        (["a", "--threads", "0"], "--threads"),
        (["a", "-o", "x.xyz"], "unknown suffix; use one of .wav"),
        (["a", "-o", "x"], "unknown suffix"),
        (["a", "--plot", "x.gif"], "unknown suffix; use one of .png"),
        (["a", "--timestamps", "x.vtt"], "unknown suffix; use one of .srt, .json"),
        (["a", "--nonsense"], "unrecognized arguments"),
    ],
)
def test_usage_errors(run, args, message):
    fails(run(*args), 2, message)


@pytest.mark.parametrize("text", ["", "   ", "\n", "?!...", "—", "\x00", "\ud800", "😀"])
def test_text_that_holds_nothing_to_speak(run, here, text):
    fails(run("--", text), 3, "nothing to speak")
    assert os.listdir(here) == []


def test_bad_text_files(run, here):
    fails(run("-f", "none.txt"), 3, "none.txt: No such file or directory")
    fails(run("-f", "."), 3, ".: Is a directory")
    fails(run("-f", "a\0b"), 3, "null byte")
    (here / "latin.txt").write_bytes(b"caf\xe9")
    fails(run("-f", "latin.txt"), 3, "latin.txt: not UTF-8 text (byte 3)")
    (here / "empty.txt").write_bytes(b"")
    fails(run("-f", "empty.txt"), 3, "the text is empty")


@pytest.mark.parametrize("name", ["amy", "..", "../tiny", "%2e%2e", "tiny\0", "tiny\n", "", "/etc", "TINY"])
def test_missing_voices(run, here, name):
    fails(run("Hello.", voice=name), 4, "shipped voices: tiny")
    assert os.listdir(here) == []


def test_no_default_hides_a_missing_voice(run):
    fails(run("Hello.", voice=None), 4, "voice 'kathleen': unknown; shipped voices: tiny")


def test_broken_voices(run, here, voices):
    tiny_voice.tiny_voice().save(here / "mine")
    assert run("Hello.", "-o", "x.wav", voice="./mine")[0] == 0
    path = here / "mine" / "vocoder.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    fails(run("Hello.", voice="./mine"), 4, "vocoder.safetensors has SHA-256")
    about = yaml.safe_load((here / "mine" / "voice.yaml").read_text())
    del about["licence"]
    (here / "mine" / "voice.yaml").write_text(yaml.safe_dump(about))
    fails(run("Hello.", voice="./mine"), 4, "'licence' is missing")


def test_audio_that_is_not_finite_leaves_no_file(run, here):
    voice = tiny_voice.tiny_voice()
    voice.vocoder.head.bias.data.fill_(60000.0)  # finite in the file, not in the air
    voice.vocoder.head.weight.data.fill_(60000.0)
    voice.acoustic.embedding.weight.data.fill_(60000.0)
    voice.save(here / "mine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.tanh", lambda x: x * float("inf"))
        fails(run("Hello.", "-o", "x.wav", voice="./mine"), 4, "audio of the sentence 'Hello.' is not finite")
    assert os.listdir(here) == ["mine"]


def test_devices_that_are_not_there(run):
    fails(run("Hello.", "--device", "cuda:77"), 5, "device 'cuda:77' cannot be used")
    fails(run("Hello.", "--device", "banana"), 5, "device 'banana' cannot be used")


def test_places_that_cannot_be_written(run, here):
    fails(run("Hello.", "-o", "none/x.wav"), 5, "none: no such folder to write to")
    fails(run("Hello.", "-o", "x.wav", "--plot", "none/x.png"), 5, "none: no such folder")
    fails(run("Hello.", "-o", "x.wav", "--timestamps", "none/x.srt"), 5, "none: no such folder")
    (here / "x.srt").mkdir()
    fails(run("Hello.", "-o", "x.wav", "--timestamps", "x.srt"), 5, "x.srt: cannot be written: Is a directory")
    (here / "x.srt").rmdir()
    assert os.listdir(here) == []
    (here / "x.wav").mkdir()
    fails(run("Hello.", "-o", "x.wav"), 5, "x.wav: cannot be written: Is a directory")
    assert os.listdir(here) == ["x.wav"]


@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_a_full_disk_leaves_the_old_file(run, here, suffix):
    (here / f"x.{suffix}").write_bytes(b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
    try:
        result = run("Hello there. " * 20, "-o", f"x.{suffix}")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    fails(result, 5, f"x.{suffix}: cannot be written: File too large")
    assert os.listdir(here) == [f"x.{suffix}"] and (here / f"x.{suffix}").read_bytes() == b"old"


def test_memory_runs_out(run, monkeypatch):
    def exhausted(*args, **kwargs):
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 9 bytes\nmore")

    monkeypatch.setattr(tiny_voice.TinyAcoustic, "stream", exhausted)
    fails(run("Hello."), 5, "out of memory: [enforce fail]")


def test_interruption_removes_the_part_file(run, here, monkeypatch):
    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(tiny_voice.TinyVocoder, "stream", interrupted)
    fails(run("Hello.", "-o", "x.wav"), 130, "interrupted")
    assert os.listdir(here) == []


def test_faults_of_the_program_are_one_line_too(run, monkeypatch):
    def broken(*args, **kwargs):
        raise LookupError("lost")

    monkeypatch.setattr(tiny_voice.TinyVocoder, "stream", broken)
    fails(run("Hello."), 1, "a fault in melstate, please report it: LookupError: lost")
    monkeypatch.setenv("MELSTATE_TRACEBACK", "1")
    with pytest.raises(LookupError):
        run("Hello.")


class Loudspeaker:
    """Stands in for sounddevice, which needs a sound card."""

    PortAudioError = type("PortAudioError", (Exception,), {})

    def __init__(self):
        self.heard, self.stopped = [], False

    def OutputStream(self, **options):
        assert options["channels"] == 1 and options["dtype"] == "float32" and options["samplerate"] == 22050
        return self

    def __enter__(self):
        return self

    def __exit__(self, *error):
        return False

    def write(self, block):
        self.heard.append(block[:, 0].copy())

    def stop(self):
        self.stopped = True


def test_play_plays_and_writes_only_when_asked(run, here, monkeypatch):
    speaker = Loudspeaker()
    monkeypatch.setitem(sys.modules, "sounddevice", speaker)
    code, out, _ = run("Hello there.", "--play")
    assert code == 0 and out.decode().endswith("→ loudspeaker\n") and os.listdir(here) == []
    assert speaker.stopped and len(speaker.heard) > 1
    assert np.abs(np.concatenate(speaker.heard) - expected("Hello there.")).max() < 0.05
    assert run("Hello there.", "--play", "-o", "x.wav")[0] == 0 and os.listdir(here) == ["x.wav"]


def test_play_without_a_loudspeaker(run, here, monkeypatch):
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    fails(run("Hello.", "--play"), 5, "--play needs sounddevice: pip install 'melstate[play]'")
    speaker = Loudspeaker()

    def none(**options):
        raise speaker.PortAudioError("Error querying device -1")

    speaker.OutputStream = none
    monkeypatch.setitem(sys.modules, "sounddevice", speaker)
    fails(run("Hello.", "--play"), 5, "no audio device to play on (Error querying device -1)")


def test_a_reader_that_leaves_ends_it_quietly(here, run, monkeypatch):
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "wb", buffering=0) as pipe:
        monkeypatch.setattr(sys, "stdout", types.SimpleNamespace(buffer=pipe, isatty=lambda: False, flush=lambda: None))
        monkeypatch.setattr(os, "dup2", lambda *fds: None)
        code, _, err = run("Hello there.", "-o", "-")
    assert (code, err) == (141, "")


def test_a_progress_bar_for_long_text_in_a_terminal(run, here, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    code, out, err = run("All of the words are here. " * 40, "-o", "x.wav")
    assert code == 0 and "speaking" in err and "x real time" in err and "Traceback" not in err
    assert run("Short.", "-o", "x.wav")[2] == ""


def test_warnings_are_lines_and_counted_once(run, here, monkeypatch):
    class Warns(tiny_voice.TinyFrontEnd):
        def sentences(self, text):
            for sentence in super().sentences(text):
                for number in range(30):
                    warnings.warn(f"dropped\n{number}", TextWarning, stacklevel=1)
                warnings.warn("of no interest", UserWarning, stacklevel=1)
                yield sentence

    monkeypatch.setattr(melstate.tts.text, "FrontEnd", lambda lexicon=None: Warns())
    code, out, err = run("Hello. There.", "-o", "x.wav", "--json")
    lines = err.splitlines()
    assert code == 0 and len(lines) == cli.MOST_WARNINGS and lines[0] == "synthesize: warning: dropped 0"
    assert "not shown" in lines[-1] and len(json.loads(out)["warnings"]) == 30


@settings(max_examples=40, deadline=None)
@given(text=st.text(max_size=120))
def test_any_text_ends_well(voices, text):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(manifest, "SHIPPED", voices)
        patch.setattr(melstate.tts.text, "FrontEnd", lambda lexicon=None: tiny_voice.TinyFrontEnd())
        patch.setattr("torch.set_num_threads", lambda count: None)
        patch.setitem(sys.modules["melstate.tts.voice"].ACOUSTIC_MODELS, "tiny_acoustic", "tiny_voice:TinyAcoustic")
        patch.setitem(sys.modules["melstate.tts.voice"].VOCODERS, "tiny_vocoder", "tiny_voice:TinyVocoder")
        code = cli.main(
            ["--voice", "tiny", "-o", os.devnull + ".wav" if not text else str(voices / "x.wav"), "--", text]
        )
    assert code in (0, 3)


SCRIPT = """
import sys
sys.path.insert(0, {folder!r})
import tiny_voice
from pathlib import Path
from melstate.tts import cli, manifest, voice
manifest.SHIPPED = Path({voices!r})
voice.ACOUSTIC_MODELS["tiny_acoustic"] = "tiny_voice:TinyAcoustic"
voice.VOCODERS["tiny_vocoder"] = "tiny_voice:TinyVocoder"
code = cli.main(sys.argv[1:])
print(*sys.modules, file=sys.stderr)
sys.exit(code)
"""


def test_speaking_imports_only_what_it_needs(voices, tmp_path):
    script = SCRIPT.format(folder=str(Path(__file__).parent.parent), voices=str(voices))
    done = subprocess.run(
        [sys.executable, "-c", script, "--voice", "tiny", "Hello.", "-o", "x.wav"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    modules = set(done.stderr.split())
    assert "torch" in modules
    unwanted = "lightning pytorch_lightning hydra librosa matplotlib scipy sounddevice rich pandas sklearn numba triton"
    assert not modules & set(unwanted.split())


def test_failures_known_before_speaking_do_not_import_torch(run_python, tmp_path):
    for args in (
        ["--help"],
        ["--list-voices"],
        ["hi", "--voice", "amy"],
        ["hi", "--model", "amy"],
        [""],
        ["hi", "-o", "x.xyz"],
    ):
        code = f"import sys\nfrom melstate.tts import cli\ntry: cli.main({args!r})\nexcept SystemExit: pass\n"
        modules = run_python(code + "print(*sys.modules)").split()
        assert "melstate.tts.cli" in modules and "torch" not in modules and "numpy" not in modules, args
