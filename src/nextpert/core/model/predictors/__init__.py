"""What predicts perturbations without cells: one file a predictor, registered by name."""
