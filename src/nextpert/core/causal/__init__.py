"""Zhang et al. 2023: posterior over weights, acquisitions, domains and design loop."""
