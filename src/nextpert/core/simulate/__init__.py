"""Linear causal models with known truth, and random ones."""
