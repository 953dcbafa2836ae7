"""Programs that measure: python -m benchmarks.NAME [--quick] [--json FILE]."""
