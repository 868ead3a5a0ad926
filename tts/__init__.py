"""Text → mel → audio: front end, acoustic models, voices, `synthesize`.

`Audio` and `Voice` are imported on first use, so that `synthesize --help` and --list-voices do not wait for torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from melstate.tts.audio import Audio
    from melstate.tts.voice import Voice

__all__ = ["Audio", "Voice"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{name.lower()}"), name)
