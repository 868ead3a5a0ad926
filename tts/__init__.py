"""Text → mel → audio: front end, acoustic models, voices, `synthesize`."""
