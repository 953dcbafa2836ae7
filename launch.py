"""Trains, samples and evaluates the experiment that a config describes.

    python launch.py --config=configs/ncsn_digits.py
    python launch.py --config=configs/ncsn_digits.py --mode=sample
    python launch.py --config=configs/ncsn_digits.py --config.training.steps=200

A config is Python code that is run: use your own, or ones you have read.
"""

import sys

from score_jax.main import leave, main

if __name__ == "__main__":
    leave(main(sys.argv))
