"""Measurements behind the claims in docs/. Each script writes benchmarks/results/<name>.json."""
