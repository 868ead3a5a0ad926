"""Fetch public corpora once, checked: `python -m melstate.recipes.data.download librispeech-dev-clean data/`."""

from __future__ import annotations

import argparse
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LIBRISPEECH = "https://www.openslr.org/resources/12"


@dataclass(frozen=True)
class Archive:
    """A tar file on the web: address, checksum ("sha256:…" or "md5:…"), and the corpus folder inside."""

    url: str
    checksum: str
    folder: str


ARCHIVES = {
    "ljspeech": Archive(
        "https://data.keithito.com/data/speech/LJSpeech-1.1.tar.bz2",
        "sha256:be1a30453f28eb8dd26af4101ae40cbf2c50413b1bb21936cbcdc6fae3de8aa5",
        "LJSpeech-1.1",
    ),
    # LibriSpeech (CC BY 4.0), with the sums of its page's md5sum.txt.
    **{
        f"librispeech-{part}": Archive(f"{LIBRISPEECH}/{part}.tar.gz", f"md5:{md5}", "LibriSpeech")
        for part, md5 in {
            "dev-clean": "42e2234ba48799c1f50f24a7926300a1",
            "dev-other": "c8d0bcc9cca99d4f8b62fcc847357931",
            "test-clean": "32fa31d27d2e1cad72775fee3f4849a9",
            "test-other": "fb5a50374b501bb3bac4815ee91d3135",
            "train-clean-100": "2a93770f6d5c6c964bc36631d331a522",
            "train-clean-360": "c0e676e450a7ff2f54aeade5171606fa",
            "train-other-500": "d1a0fd59409feb2c614ce4d30c387708",
        }.items()
    },
}


def download(name: str, target: str | Path, archives: dict[str, Archive] | None = None) -> Path:
    """Download and unpack into `target`; what was done whole is not repeated. Returns the corpus folder.

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
    file = archive.url.rsplit("/", 1)[-1]
    unpacked = target / f".{file}.unpacked"  # made last: unpacking that was cut short is done again
    if not unpacked.is_file():
        path = pooch.retrieve(
            archive.url,
            known_hash=archive.checksum,
            fname=file,
            path=target,
            downloader=pooch.HTTPDownloader(progressbar=False, timeout=60) if archive.url.startswith("http") else None,
        )
        with tarfile.open(path) as tar:
            if hasattr(tarfile, "data_filter"):  # before Python 3.11.4 there is none, and only the checksum protects
                tar.extraction_filter = tarfile.data_filter
            tar.extractall(target)
        unpacked.touch()
    return target / archive.folder


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m melstate.recipes.data.download", description=__doc__)
    parser.add_argument(
        "corpus", nargs="+", metavar="corpus", choices=sorted(ARCHIVES), help=", ".join(sorted(ARCHIVES))
    )
    parser.add_argument("folder", type=Path, help="where the archives and the corpora are put")
    given = parser.parse_args(arguments)
    for name in given.corpus:
        print(download(name, given.folder))


if __name__ == "__main__":
    main()
