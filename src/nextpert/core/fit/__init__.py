"""The model of a fit: learned from the cells of a screen on graphs, and its predictions."""
