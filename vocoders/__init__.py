"""mel ↔ audio: the mel contract, generators, discriminators."""
