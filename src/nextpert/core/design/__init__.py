"""Plans: the perturbations in a plan, the cells of each, and when to stop."""
