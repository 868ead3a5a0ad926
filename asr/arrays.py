"""Tables and lists of words in an .npz file, the whole of it or nothing."""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar
from zipfile import BadZipFile

import numpy as np

from melstate.vocoders.checkpoint import write_atomic

Built = TypeVar("Built")


def pack_words(words: Sequence[str]) -> np.ndarray:
    """Words without line breaks as an array of bytes."""
    return np.frombuffer("\n".join(words).encode(), np.uint8)


def unpack_words(array: np.ndarray) -> list[str]:
    """The words again. Raises: UnicodeDecodeError: other bytes."""
    return bytes(array).decode().split("\n")


def write_arrays(path: str | Path, arrays: Mapping[str, np.ndarray]) -> int:
    """Write a compressed .npz, whole or not at all. Returns its bytes."""
    stream = io.BytesIO()
    np.savez_compressed(stream, **dict(arrays))  # type: ignore[arg-type]
    write_atomic(path, stream.getvalue())
    return len(stream.getvalue())


def read_arrays(path: str | Path, what: str, remedy: str, build: Callable[[Mapping[str, np.ndarray]], Built]) -> Built:
    """What `build` makes of the arrays in a file.

    Args:
        what: the name, in errors, of what the file should hold.
        remedy: what to do where it does not.
        build: raises KeyError or ValueError for arrays that are something else.
    Raises: FileNotFoundError: no such file. ValueError: it holds no `what`, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such {what}; {remedy}")
    try:
        found = np.load(path, allow_pickle=False)
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise ValueError("a single array")
        with found as arrays:
            return build({name: arrays[name] for name in arrays})
    except (KeyError, ValueError, OSError, EOFError, BadZipFile, zlib.error) as error:
        raise ValueError(f"{path}: no {what} ({error}); {remedy}") from error
