"""Cloning: only initial states change, the loss falls, the clone speaks, another base is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import tiny_voice
import torch
import yaml

from melstate.recipes import clone, similarity
from melstate.tts import manifest
from melstate.tts.clone import continued, load_base
from melstate.tts.lina import Lina
from melstate.tts.manifest import VoiceError
from melstate.tts.voice import Voice
from melstate.tts.voice_folder import add_model

SPEECH = Path(__file__).parents[1] / "speech"


def small(seed=0, **options):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        given = {"text_dim": 16, "text_hidden": 16, "text_blocks": 1, "dim": 32, "hidden": 16, "blocks": 1}
        given |= {"options": {"heads": 2}, "key_dim": 8, "place_dim": 16, "path_dim": 16, "embedding": 16, "prenet": 16}
        model = Lina(**(given | {"rank": 2, "retries": 0} | options))
        for parameter in model.starts.right:
            torch.nn.init.normal_(parameter, std=0.3)
        return model


@pytest.fixture
def base(tiny, tiny_kinds, tmp_path):
    """A voice folder with a tiny Lina beside its own model."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        voice = tiny_voice.tiny_voice()
    voice.save(tmp_path / "base")
    add_model(tmp_path / "base", small())
    return tmp_path / "base"


@pytest.fixture
def clips(speech_cache):
    return clone.read_clips(SPEECH, speech_cache, 0.3)


def arguments(base, folder, cache, *more):
    return [
        *(str(SPEECH), "--base", str(base), "-o", str(folder), "--licence", "CC0-1.0", "--cache", str(cache)),
        *("--licence-file", str(SPEECH / "LICENSE"), "--steps", "3", "--batch-size", "2", "--rank", "3", *more),
    ]


def test_only_initial_states_change_and_the_held_out_loss_falls(base, clips):
    train, held, judged = clips
    assert len(train) == 4 and len(held) == len(judged) == 2 and not {c.id for c in train} & {c.id for c in held}
    _, _, name, model = load_base(base)
    assert name == "lina"
    before = {key: value.clone() for key, value in model.state_dict().items() if not key.startswith("starts")}
    torch.manual_seed(7)
    state = torch.random.get_rng_state()
    tuned = clone.tune(model, train, held, rank=3, steps=12, lr=0.1, batch_size=2)
    assert torch.equal(state, torch.random.get_rng_state()), "the global random state is left alone"
    after = {key: value for key, value in model.state_dict().items() if not key.startswith("starts")}
    assert before.keys() == after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    assert tuned.after < tuned.before - 0.005
    assert tuned.parameters == 2 * 2 * 3 * (8 + 16) and tuned.seconds > 0
    assert all(parameter.any() for parameter in tuned.start.parameters())


def test_it_begins_where_the_base_speaks():
    model = small(speakers=3, speaker=2)
    start = continued(model, 4)
    speakers, blank = torch.tensor([2]), (model.lower.init_state(1), model.upper.init_state(1))
    wanted = model.starts(blank, speakers)
    found = start.starts(blank, torch.tensor([0]))
    assert wanted[0].layers[0].mixer.memory.any()
    for part in (0, 1):
        torch.testing.assert_close(found[part].layers[0].mixer.memory, wanted[part].layers[0].mixer.memory)
    with pytest.raises(ValueError, match="at least the base's, 2, got 1"):
        continued(model, 1)


def test_the_command_makes_a_small_voice_that_speaks(base, tmp_path, speech_cache, capsys):
    folder, figures = tmp_path / "lj", tmp_path / "figures.json"
    assert clone.main(arguments(base, folder, speech_cache, "--json", str(figures))) == 0
    said = capsys.readouterr().out
    assert "288 numbers tuned in" in said and "held-out loss" in said
    measured = json.loads(figures.read_text())
    assert measured["parameters"] == 288 and measured["clips"] == 5 and measured["bytes"] < 20_000
    assert sorted(path.name for path in folder.iterdir()) == ["LICENSE", "card.md", "start.safetensors", "voice.yaml"]
    front_end = tiny_voice.TinyFrontEnd()
    voice = Voice.load(folder, front_end=front_end)
    assert (voice.name, voice.model, voice.licence) == ("lj", "lina", "CC0-1.0")
    own = voice.synthesize("Hello.").samples
    theirs = Voice.load(base, model="lina", front_end=front_end).synthesize("Hello.").samples
    assert own.shape != theirs.shape or np.abs(own - theirs).max() > 0
    # A clone is whole again once saved: it no longer needs its base.
    voice.save(tmp_path / "whole")
    again = Voice.load(tmp_path / "whole", front_end=front_end).synthesize("Hello.").samples
    assert abs(len(again) - len(own)) < 0.5 * len(own)


@pytest.fixture
def made(base, tmp_path, speech_cache):
    assert clone.main(arguments(base, tmp_path / "lj", speech_cache)) == 0
    return tmp_path / "lj"


def edit(folder, change):
    path = folder / "voice.yaml"
    values = yaml.safe_load(path.read_text())
    change(values)
    path.write_text(yaml.safe_dump(values))


def test_another_base_is_refused(base, made):
    add_model(base, small(seed=1))
    with pytest.raises(
        VoiceError, match=r"'lj' was tuned on a model 'lina' of '.*base' with SHA-256 [0-9a-f]{16}…, this"
    ):
        Voice.load(made)
    add_model(base, small())
    Voice.load(made, front_end=tiny_voice.TinyFrontEnd())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v["base"].update(voice="./gone"), "is a clone of './gone': voice .* no folder with a voice.yaml"),
        (lambda v: v["base"].update(voice="nobody"), "is a clone of 'nobody': voice 'nobody': unknown"),
        (lambda v: v["base"].update(model="tiny_acoustic"), "model 'tiny_acoustic' is a tiny_acoustic, not a lina"),
        (lambda v: v["base"].update(model="other"), "has no model 'other'"),
        (lambda v: v["base"].update(sha256="0" * 64), "SHA-256 0000000000000000…, this one's"),
        (lambda v: v["vocoder"].update(sha256="0" * 64), "was tuned on a vocoder of"),
        (lambda v: v["base"].pop("sha256"), "'base.sha256' is missing"),
        (lambda v: v["base"].update(more=1), "unknown key 'base.more'"),
        (lambda v: v["models"]["lina"].update(sha256="0" * 64), "the file is damaged or was replaced"),
    ],
)
def test_broken_clones_are_named(made, change, message):
    edit(made, change)
    with pytest.raises(VoiceError, match=message):
        Voice.load(made)


def test_a_clone_is_no_base(made, base):
    with pytest.raises(VoiceError, match="'lj' is itself a clone; take its base"):
        load_base(made)
    with pytest.raises(VoiceError, match="model 'tiny_acoustic' is a tiny_acoustic, not a lina"):
        load_base(base, "tiny_acoustic")
    assert manifest.read(made).base.model == "lina"


def test_the_shipped_voice_must_have_a_lina_to_be_cloned(tiny_folder):
    with pytest.raises(VoiceError, match=r"none of its models \(tiny_acoustic\) is a lina"):
        load_base(tiny_folder)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--name", "a/b"], "a name may hold only"),
        (["--rank", "1"], "rank must be at least the base's, 2, got 1"),
        (["--licence", " "], "needs a licence"),
        (["--speaker-encoder", "no.safetensors"], "no.safetensors: no such checkpoint"),
    ],
)
def test_what_cannot_be_done_is_told(base, tmp_path, speech_cache, capsys, options, message):
    assert clone.main([*arguments(base, tmp_path / "lj", speech_cache), *options]) == 1
    assert message in capsys.readouterr().err


def test_too_few_clips_are_refused(tmp_path):
    (tmp_path / "wavs").mkdir()
    rows = (SPEECH / "metadata.csv").read_text().splitlines()[:3]
    (tmp_path / "metadata.csv").write_text("\n".join(rows))
    for row in rows:
        name = row.split("|")[0]
        found = next((SPEECH / "wavs").glob(f"{name}.*"))
        (tmp_path / "wavs" / found.name).symlink_to(found)
    with pytest.raises(ValueError, match="3 clips that can be used; at least 4"):
        clone.read_clips(tmp_path, tmp_path / "cache", 0.2)


def test_similarity_is_cosine_to_the_speaker_with_intervals():
    towards, away = np.array([1.0, 0.0]), np.array([0.0, 1.0])
    found = similarity.compare([towards, 2 * towards], [towards], [away, away + towards], [towards, towards + away])
    half = 0.5**0.5
    assert found.before.value == pytest.approx(half / 2) and found.after.value == pytest.approx((1 + half) / 2)
    assert found.gain.value == pytest.approx(0.5) and found.own == (1.0, 1.0, 1.0)
    assert found.gain.low == pytest.approx(0.0) and found.gain.high == pytest.approx(1.0)
    assert found.before.low <= found.before.value <= found.before.high


def test_our_encoder_embeds_any_rate(tmp_path):
    from melstate.asr.speaker_encoder import SpeakerEncoder
    from melstate.vocoders import checkpoint

    with torch.random.fork_rng():
        checkpoint.save(tmp_path / "encoder.safetensors", SpeakerEncoder(dim=8, width=16, joined=16))
    embed = similarity.encoder(tmp_path / "encoder.safetensors")
    sound = np.sin(np.arange(22050) / 7).astype(np.float32)
    assert np.linalg.norm(embed(sound, 22050)) == pytest.approx(1.0, abs=1e-5)
