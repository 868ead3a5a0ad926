"""Fetch a public corpus once, checked by its SHA-256: `python -m melstate.recipes.data.download ljspeech data/`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Archive:
    """A tar file on the web: address, SHA-256, and the corpus folder inside."""

    url: str
    sha256: str
    folder: str


ARCHIVES = {
    "ljspeech": Archive(
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        "LJSpeech-1.1",
    ),
}


def download(name: str, target: str | Path, archives: dict[str, Archive] | None = None) -> Path:
    """Download and unpack into `target`; a whole download is not repeated. Returns the corpus folder.

    Raises:
        ValueError: unknown name, or an archive whose checksum differs (the file is kept out of `target`).
        OSError: no network, no room.
    """
    import pooch

    known = ARCHIVES if archives is None else archives
    if name not in known:
        raise ValueError(f"unknown corpus '{name}'; there are {', '.join(sorted(known))}")
    archive = known[name]
    target = Path(target)
    pooch.retrieve(
        archive.url,
        known_hash=f"sha256:{archive.sha256}",
        fname=archive.url.rsplit("/", 1)[-1],
        path=target,
        processor=pooch.Untar(extract_dir="."),
        downloader=pooch.HTTPDownloader(progressbar=False, timeout=60) if archive.url.startswith("http") else None,
    )
    return target / archive.folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m melstate.recipes.data.download", description=__doc__)
    parser.add_argument("corpus", choices=sorted(ARCHIVES))
    parser.add_argument("folder", type=Path, help="where the archive and the corpus are put")
    given = parser.parse_args(arguments)
    print(download(given.corpus, given.folder))


if __name__ == "__main__":
    main()
