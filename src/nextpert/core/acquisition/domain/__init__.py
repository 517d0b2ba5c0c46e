"""Domains: where interventions may lie, each able to find its best point."""
