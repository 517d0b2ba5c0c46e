"""``tl.replay_design`` and its helpers."""

from nextpert.tl._replay_design.replay_design import replay_design

__all__ = ["replay_design"]
