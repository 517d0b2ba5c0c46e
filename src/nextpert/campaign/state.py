"""What a campaign knows beside its cells, and how that lies in ``uns["campaign"]``."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert.campaign import history as _history
from nextpert.campaign.model import Standing
from nextpert.campaign.options import from_stored, to_stored
from nextpert.core._codec import coded, unpack

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

KEY = "campaign"


def _text_index(table: pd.DataFrame) -> pd.DataFrame:
    return table.set_axis(table.index.astype(str))


def _by_name(column: str, kind: type) -> Any:
    """Declare numbers or texts by perturbation, stored as a table."""

    def store(value: Mapping[str, Any]) -> pd.DataFrame:
        held = _adata.strings(value.values()) if kind is str else np.array([*value.values()], int)
        return _text_index(pd.DataFrame({"perturbation": _adata.strings(value), column: held}))

    def read(table: pd.DataFrame) -> dict[str, Any]:
        return dict(zip(map(str, table["perturbation"]), map(kind, table[column]), strict=True))

    return coded(store, read)


def _with_advice(standings: pd.DataFrame) -> pd.DataFrame:
    """Return the table with what campaigns saved by earlier versions lack: not known."""
    table = standings.reset_index(drop=True).reindex(columns=["round", *Standing._fields])
    table["advice"] = _adata.strings(table["advice"].fillna(""))
    return table


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

    target: Any = coded(partial(to_stored, what="target"), from_stored)
    options: dict[str, dict[str, Any]] = coded(partial(to_stored, what="options"), from_stored)
    history: pd.DataFrame = coded(_text_index, _history.read_history)
    standings: pd.DataFrame = coded(_text_index, _with_advice)
    pending: dict[str, int] = _by_name("n_cells", int)
    failed: dict[str, str] = _by_name("reason", str)

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


def read_state(adata: ad.AnnData) -> State:
    """Return the state in ``adata.uns["campaign"]``."""
    stored = _adata.read_stored(adata, KEY, "npt.Campaign")
    return unpack(State, stored, f"adata.uns[{KEY!r}]", "run npt.Campaign again")


def add_standing(standings: pd.DataFrame | None, this_round: int, found: Standing) -> pd.DataFrame:
    """Return the table with one more row."""
    row = pd.DataFrame([{"round": this_round, **found._asdict()}])
    out = row if standings is None else pd.concat([standings, row], ignore_index=True)
    for name in ("best", "advice"):
        out[name] = _adata.strings(out[name])
    return out
