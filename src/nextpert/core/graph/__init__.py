"""Directed acyclic graphs: the type, random families, perturbed graphs, distances."""
