"""Benchmarks against peers: ``python -m benchmarks`` prints one table."""
