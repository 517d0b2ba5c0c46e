"""Campaigns of several rounds: propose a plate, observe its cells, propose the next plate."""

from nextpert.campaign.campaign import Campaign

__all__ = ["Campaign"]
