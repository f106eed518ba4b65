"""Benchmarks: never timed tests."""
