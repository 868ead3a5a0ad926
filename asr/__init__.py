"""Audio → text.

from melstate.asr import Recognizer
Recognizer.load("default").transcribe("talk.ogg").text
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melstate.asr.recognizer import Recognizer

__all__ = ["Recognizer"]


def __getattr__(name: str) -> Any:
    """Recognizer imports torch; whoever asks for it alone shall wait for that."""
    if name == "Recognizer":
        from melstate.asr.recognizer import Recognizer

        return Recognizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
