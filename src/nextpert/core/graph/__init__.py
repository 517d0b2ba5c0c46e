"""Directed acyclic graphs, their equivalence classes, perturbations and distances."""
