"""What is learned from the cells of a screen on graphs, and asked of it: the model of a fit."""
