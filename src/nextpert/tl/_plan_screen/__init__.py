"""``tl.plan_screen`` and its helpers."""

from nextpert.tl._plan_screen.plan_screen import plan_screen

__all__ = ["plan_screen"]
