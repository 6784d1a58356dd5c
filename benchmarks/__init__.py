"""Benchmarks: ratios against a baseline of the same run, since machines are noisy. `make bench` runs them."""
