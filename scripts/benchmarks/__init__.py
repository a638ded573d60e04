"""Benchmarks: ratios within one run, for a machine that is noisy."""
