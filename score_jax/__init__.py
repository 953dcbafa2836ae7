"""Score-based generative modelling in JAX and Flax. ARCHITECTURE.md says what is where."""
