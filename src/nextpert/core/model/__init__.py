"""Effects of perturbations: what is expected of them before their cells, and after."""
