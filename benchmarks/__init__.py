"""Benchmarks: crossbus beside its peers, in one run. `python -m benchmarks` runs them all."""
