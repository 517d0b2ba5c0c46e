"""Campaigns: propose, observe, update, on simulated cells or a screen replayed."""
