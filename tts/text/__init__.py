"""Text → phones: normaliser, sentences, lexicon, grapheme-to-phoneme, symbols."""
