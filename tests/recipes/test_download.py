"""Corpora come whole and checked, or not at all."""

import hashlib
import http.server
import io
import tarfile
import threading
from pathlib import Path

import pytest

from melstate.recipes.data.corpus import read_ljspeech
from melstate.recipes.data.download import ARCHIVES, Archive, download
from melstate.recipes.data.recordings import read_librispeech

SPEECH = Path(__file__).parents[1] / "speech"


@pytest.fixture
def served(tmp_path):
    """An archive of the test clips on a local server, and how often it was asked for."""
    site = tmp_path / "site"
    site.mkdir()
    with tarfile.open(site / "clips.tar.bz2", "w:bz2") as tar:
        tar.add(SPEECH, "clips")
    asked = []

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=str(site))

        def log_message(self, *args):
            asked.append(args)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}/clips.tar.bz2"
    digest = hashlib.sha256((site / "clips.tar.bz2").read_bytes()).hexdigest()
    yield Archive(url, f"sha256:{digest}", "clips"), asked
    server.shutdown()


def test_a_checked_archive_becomes_a_corpus_once(served, tmp_path):
    archive, asked = served
    folder = download("clips", tmp_path / "data", {"clips": archive})
    assert len(read_ljspeech(folder).utterances) == 6
    download("clips", tmp_path / "data", {"clips": archive})
    assert len(asked) == 1


@pytest.mark.parametrize("wrong", ["sha256:" + "0" * 64, "md5:" + "0" * 32])
def test_a_wrong_checksum_leaves_nothing(served, tmp_path, wrong):
    archive, _ = served
    with pytest.raises(ValueError, match="(?i)hash"):
        download("clips", tmp_path / "data", {"clips": Archive(archive.url, wrong, "clips")})
    assert not list((tmp_path / "data").rglob("*.flac"))


def test_unpacking_that_was_cut_short_is_done_again(served, tmp_path):
    archive, asked = served
    folder = download("clips", tmp_path / "data", {"clips": archive})
    (tmp_path / "data" / ".clips.tar.bz2.unpacked").unlink()
    next(folder.glob("wavs/*.flac")).unlink()
    assert len(read_ljspeech(download("clips", tmp_path / "data", {"clips": archive})).utterances) == 6
    assert len(asked) == 1


def test_librispeech_comes_as_its_layout_from_its_md5(served, tmp_path):
    """End to end but for the address: an archive in LibriSpeech's layout becomes recordings."""
    archive, _ = served
    site = tmp_path / "site"
    with tarfile.open(site / "dev-clean.tar.gz", "w:gz") as tar:
        for number, clip in enumerate(sorted((SPEECH / "wavs").glob("*.flac"))[:2]):
            tar.add(clip, f"LibriSpeech/dev-clean/7/8/7-8-000{number}.flac")
        lines = b"7-8-0000 NOT AT THIS CASE\n7-8-0001 FOR THE TIME\n"
        entry = tarfile.TarInfo("LibriSpeech/dev-clean/7/8/7-8.trans.txt")
        entry.size = len(lines)
        tar.addfile(entry, io.BytesIO(lines))
    md5 = hashlib.md5((site / "dev-clean.tar.gz").read_bytes()).hexdigest()
    url = archive.url.rsplit("/", 1)[0] + "/dev-clean.tar.gz"
    folder = download("libri", tmp_path / "data", {"libri": Archive(url, f"md5:{md5}", "LibriSpeech")})
    found = read_librispeech(folder, ["dev-clean"])
    assert [r.text for r in found.recordings] == ["NOT AT THIS CASE", "FOR THE TIME"] and not found.problems


def test_unknown_corpora_are_named():
    with pytest.raises(ValueError, match="unknown corpus 'librivox'; there are librispeech-dev-clean, .*ljspeech"):
        download("librivox", "data")


def test_every_archive_has_a_whole_checksum():
    lengths = {"sha256": 64, "md5": 32}
    for archive in ARCHIVES.values():
        kind, _, digits = archive.checksum.partition(":")
        assert len(digits) == lengths[kind] and int(digits, 16)
    assert sum(name.startswith("librispeech-") for name in ARCHIVES) == 7
    assert len({archive.checksum for archive in ARCHIVES.values()}) == len(ARCHIVES)
