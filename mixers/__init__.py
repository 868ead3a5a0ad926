"""Sequence-mixing layers on melstate.kernels behind one interface."""
