"""Campaigns of several rounds: propose a round, observe its cells, propose the next round."""

from nextpert.campaign.campaign import Campaign

__all__ = ["Campaign"]
