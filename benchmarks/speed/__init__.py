"""How fast, in seconds and CPU-seconds, alone or beside what one would pick instead.

    python -m benchmarks.speed                              # ours
    python -m benchmarks.speed --peer diffusers             # and the same work in PyTorch
    python -m benchmarks.speed --what startup memory --peer diffusers

See `__main__` for the options, docs/speed.md for how it is measured.
"""
