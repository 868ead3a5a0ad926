"""Corpora come whole and checked, or not at all."""

import hashlib
import http.server
import tarfile
import threading
from pathlib import Path

import pytest

from melstate.recipes.data.corpus import read_ljspeech
from melstate.recipes.data.download import ARCHIVES, Archive, download

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
    yield Archive(url, hashlib.sha256((site / "clips.tar.bz2").read_bytes()).hexdigest(), "clips"), asked
    server.shutdown()


def test_a_checked_archive_becomes_a_corpus_once(served, tmp_path):
    archive, asked = served
    folder = download("clips", tmp_path / "data", {"clips": archive})
    assert len(read_ljspeech(folder).utterances) == 6
    download("clips", tmp_path / "data", {"clips": archive})
    assert len(asked) == 1


def test_a_wrong_checksum_leaves_nothing(served, tmp_path):
    archive, _ = served
    with pytest.raises(ValueError, match="(?i)hash"):
        download("clips", tmp_path / "data", {"clips": Archive(archive.url, "0" * 64, "clips")})
    assert not list((tmp_path / "data").rglob("*.flac"))


def test_unknown_corpora_are_named():
    with pytest.raises(ValueError, match="unknown corpus 'librivox'; there are ljspeech"):
        download("librivox", "data")
    assert len(ARCHIVES["ljspeech"].sha256) == 64
