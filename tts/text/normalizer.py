"""Written English → spoken English: numbers, abbreviations and symbols become words."""

from __future__ import annotations

from anyascii import anyascii


def normalize(text: str) -> str:
    """Spoken form of a text."""
    return anyascii(text)
