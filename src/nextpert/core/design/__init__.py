"""Plans: the perturbations on a plate, the cells of each, and when to stop."""
