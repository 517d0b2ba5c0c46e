"""Acquisitions, which say which shift or perturbation to test next."""
