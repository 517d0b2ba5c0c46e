"""Cells as statistics: moments of environments, and distances between their means."""
