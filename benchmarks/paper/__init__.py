"""The synthetic experiments of Zhang et al. 2023, one command a figure."""
