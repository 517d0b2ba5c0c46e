"""The loop of a lab: propose a plate, observe its cells, propose the next."""

from nextpert.campaign.campaign import Campaign

__all__ = ["Campaign"]
