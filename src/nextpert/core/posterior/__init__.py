"""DAG-BLR: the posterior over the weights of a graph."""
