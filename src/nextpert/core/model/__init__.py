"""Models of the effects of perturbations: predictions without cells, and the posterior."""
