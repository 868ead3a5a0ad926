"""Compile the Carnegie Mellon Pronouncing Dictionary into the compact lexicon that ships with tts/text.

    python -m melstate.recipes.compile_lexicon CMUDICT_FOLDER [--out tts/text/data]

CMUDICT_FOLDER holds cmudict.dict and LICENSE (github.com/cmusphinx/cmudict). The output is the same, byte for byte, for
the same input: a gzip file of three lines (a JSON header, words, pronunciations; see melstate.tts.text.lexicon), and
the dictionary's licence beside it.
"""

from __future__ import annotations

import argparse
import gzip
import json
import shutil
from pathlib import Path

from melstate.tts.text import lexicon, symbols


def read_cmudict(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Pronunciations by word in file order. Raises ValueError naming file and line that is no entry."""
    entries: dict[str, list[tuple[str, ...]]] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        head, _, rest = line.partition("#")[0].strip().partition(" ")
        if not head:
            continue
        word = head.partition("(")[0] or head
        try:
            entries.setdefault(word.lower(), []).append(symbols.parse_phones(rest))
        except ValueError as error:
            raise ValueError(f"{path}:{number}: {error}") from error
    return entries


def compile_lexicon(entries: dict[str, list[tuple[str, ...]]]) -> bytes:
    """The lexicon file's bytes."""
    header = {"format": lexicon.FORMAT, "phones": symbols.PHONES, "words": len(entries), "source": "CMUdict"}
    words = sorted(entries)
    spoken = [" ".join(map(lexicon.pack, dict.fromkeys(entries[word]))) for word in words]
    text = "\n".join([json.dumps(header), "\t".join(words), "\t".join(spoken)])
    return gzip.compress(text.encode("latin-1"), 9, mtime=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, metavar="CMUDICT_FOLDER")
    parser.add_argument("--out", type=Path, default=lexicon.PATH.parent)
    options = parser.parse_args()
    data = compile_lexicon(read_cmudict(options.folder / "cmudict.dict"))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / lexicon.PATH.name).write_bytes(data)
    shutil.copyfile(options.folder / "LICENSE", options.out / "cmudict.LICENSE")
    print(f"{options.out / lexicon.PATH.name}: {len(data)} bytes")


if __name__ == "__main__":
    main()
