"""Train, evaluate, export, serve, benchmark: the only package that combines all others."""
