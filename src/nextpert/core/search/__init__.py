"""Structure searches: the moments of control cells in, a graph out."""
