"""Structure searches: learning a graph from the moments of cells."""
