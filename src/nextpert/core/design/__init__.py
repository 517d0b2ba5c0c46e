"""Plans: which perturbations share a plate, how many cells each gets, when to stop."""
