"""What a campaign knows beside its cells, and how that lies in ``uns["campaign"]``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.campaign import history as _history
from nextpert.campaign.model import Standing
from nextpert.campaign.options import from_stored, to_stored

if TYPE_CHECKING:
    import anndata as ad

KEY = "campaign"


@dataclass(frozen=True)
class State:
    """Everything but the cells; a step of a campaign makes a new one.

    Parameters
    ----------
    target, options
        The wanted state, and the options of learning, fitting and planning.
    history
        As of :mod:`nextpert.campaign.history`.
    standings
        One row a fit: ``round``, then the fields of :class:`Standing`.
    pending
        Perturbations under way, with their cells.
    failed
        Perturbations that failed, and why.
    """

    target: Any
    options: dict[str, dict[str, Any]]
    history: pd.DataFrame
    standings: pd.DataFrame
    pending: dict[str, int]
    failed: dict[str, str]

    @property
    def round(self) -> int:
        """Number of plates proposed so far."""
        return int((self.history["action"] == "proposed").any()) and int(
            self.history["round"].max()
        )

    @property
    def n_start(self) -> int:
        """Number of labelled cells that the campaign started from."""
        return int(self.history.loc[self.history["action"] == "started", "n_cells"].sum())

    def stored(self) -> dict[str, Any]:
        """Return it as a mapping that h5ad and zarr keep."""
        return {
            "target": to_stored(self.target, "target"),
            "options": to_stored(self.options, "options"),
            "history": _text_index(self.history),
            "standings": _text_index(self.standings),
            "pending": _text_index(
                pd.DataFrame(
                    {
                        "perturbation": _adata.strings(self.pending),
                        "n_cells": np.array(list(self.pending.values()), np.int64),
                    }
                )
            ),
            "failed": _text_index(
                pd.DataFrame(
                    {
                        "perturbation": _adata.strings(self.failed),
                        "reason": _adata.strings(self.failed.values()),
                    }
                )
            ),
        }


def read_state(adata: ad.AnnData) -> State:
    """Return the state in ``adata.uns["campaign"]``."""
    stored = _adata.read_stored(adata, KEY, "npt.Campaign")
    pending, failed = stored["pending"], stored["failed"]
    return State(
        from_stored(stored["target"]),
        from_stored(stored["options"]),
        _history.read_history(stored["history"]),
        _with_advice(stored["standings"].reset_index(drop=True)),
        dict(zip(map(str, pending["perturbation"]), map(int, pending["n_cells"]), strict=True)),
        dict(zip(map(str, failed["perturbation"]), map(str, failed["reason"]), strict=True)),
    )


def _with_advice(standings: pd.DataFrame) -> pd.DataFrame:
    """Return the table with what campaigns saved by earlier versions lack: not known."""
    table = standings.reindex(columns=["round", *Standing._fields])
    table["advice"] = _adata.strings(table["advice"].fillna(""))
    return table


def add_standing(standings: pd.DataFrame | None, this_round: int, found: Standing) -> pd.DataFrame:
    """Return the table with one more row."""
    row = pd.DataFrame([{"round": this_round, **found._asdict()}])
    out = row if standings is None else pd.concat([standings, row], ignore_index=True)
    for name in ("best", "advice"):
        out[name] = _adata.strings(out[name])
    return out


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str))
