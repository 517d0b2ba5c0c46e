"""Predictors of perturbations without cells: one file per predictor, registered by name."""
