"""Text → phones: normaliser, sentences, lexicon, grapheme-to-phoneme, symbols."""

from melstate.tts.text.frontend import FrontEnd, Sentence
from melstate.tts.text.normalizer import normalize

__all__ = ["FrontEnd", "Sentence", "normalize"]
