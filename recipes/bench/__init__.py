"""Benchmarks: each prints device, shapes, medians and the baseline of the same run."""
