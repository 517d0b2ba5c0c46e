"""Acquisitions of what to try next, and the domains in which they are minimised."""
