"""Statistics of cells: moments of environments, and distances between their means."""
