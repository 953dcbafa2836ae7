"""Mistakes on purpose: mutated configs and data, for benchmarks.faults and the tests."""
