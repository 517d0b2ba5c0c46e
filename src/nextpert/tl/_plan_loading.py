"""``tl.plan_loading``: cells to load, lanes, reads and cost of a plan."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert import _adata
from nextpert._adata.arguments import between, checked, options
from nextpert.core._text import percent
from nextpert.core.design.loading import (
    Lanes,
    abundance_cv,
    cells_to_reach,
    lanes_for,
    most_within,
    share_reached,
    share_single,
)
from nextpert.study.constructs import digest_of_plan, noun_of

if TYPE_CHECKING:
    from collections.abc import Mapping

    import anndata as ad

logger = logging.getLogger(__name__)

REACH = 0.9  # share of the perturbations that are to reach their minimum number of cells
SCREEN, PLAN, GIVEN, TYPICAL = "this screen", "the plan", "given", "typical"


# Ranges beyond which no instrument or library is: with moi 10, one cell in 2,000 has one construct.
_MIN_SHARE = 1e-3
_MAX_MOI = 10.0
_MAX_LANES = 10_000
_MAX_PRICE = 1e12


@options(
    moi=between(1e-3, _MAX_MOI, inclusive=True),
    kept=between(_MIN_SHARE, 1, inclusive=True),
    recovery=between(_MIN_SHARE, 1, inclusive=True),
    droplets=between(1000, 1e9, inclusive=True),
    lane_cells=between(1, 1e9, inclusive=True),
    reads=between(1, 1e9, inclusive=True),
)
@dataclass(frozen=True)
class _Loading:
    """Fields of ``loading``, documented in :func:`plan_loading`, with their typical values."""

    moi: float = 0.3
    kept: float = 0.8
    # According to the maker of Chromium Next GEM 3' v3.1, 30,000 of 49,500 cells loaded are
    # captured in 23,300 droplets, 17,700 of them with one cell. Random placement of cells in 57,000
    # droplets gives these numbers.
    recovery: float = 0.606
    droplets: float = 57_000
    lane_cells: float = 10_000
    reads: float = 25_000  # the maker's minimum: 20,000 of messenger RNA and 5,000 of guides


@options(
    construct=between(0, _MAX_PRICE, inclusive=True),
    cell=between(0, _MAX_PRICE, inclusive=True),
    lane=between(0, _MAX_PRICE, inclusive=True),
    million_reads=between(0, _MAX_PRICE, inclusive=True),
    budget=between(0, _MAX_PRICE),
)
@dataclass(frozen=True)
class _Prices:
    """Fields of ``costs``, documented in :func:`plan_loading`."""

    construct: float = 0.0
    cell: float = 0.0
    lane: float = 0.0
    million_reads: float = 0.0
    budget: float | None = None


@checked(loading=_Loading, costs=_Prices, lanes=between(1, _MAX_LANES, inclusive=True))
def plan_loading(
    adata: ad.AnnData,
    *,
    key: str = "plan",
    lanes: int | None = None,
    loading: Mapping[str, Any] | None = None,
    costs: Mapping[str, Any] | None = None,
    key_added: str = "loading",
    copy: bool = False,
) -> ad.AnnData | None:
    r"""Compute the cells to load, lanes, reads and cost for a plan.

    A plan counts usable cells: those with one known construct that pass all filters. More cells
    must be loaded (equations 37 to 40 of :doc:`/model/mathematics`):

    1. Constructs differ in abundance. The number of usable cells is the planned one, or more if 90%
       of the perturbations need more to reach the minimum of the plan (``min_cells``).
    2. The usable share of the droplets with cells is that of this screen, if
       ``uns["preprocessing"]`` has its filters. Otherwise, or if ``moi`` or ``kept`` is given, it
       is the product of the shares of droplets with one cell, of cells with one construct (Poisson,
       given at least one) and ``kept``.
    3. Cells enter droplets at random, so more cells per lane give more doublets.
    4. Only a share of the loaded cells is captured.

    Parameters
    ----------
    adata
        Cells x genes with a result of :func:`plan_screen`. :func:`nextpert.get.order_df` lists the
        constructs.
    key
        The plan in ``adata.uns``.
    lanes
        Number of lanes that are available, for which the number of planned cells is computed.
    loading
        Properties of the library and the instrument, a mapping with some of the following. Defaults
        are in brackets; the last four are those of 10x Genomics Chromium Next GEM 3' v3.1.

        - ``"moi"`` (0.3): multiplicity of infection, the mean constructs per cell before selection.
        - ``"kept"`` (0.8): share of single cells whose construct is detected and that pass filters.
        - ``"recovery"`` (0.606): share of the loaded cells that is captured.
        - ``"droplets"`` (57,000): droplets per lane.
        - ``"lane_cells"`` (10,000): maximum number of captured cells per lane.
        - ``"reads"`` (25,000): reads per droplet with cells.
    costs
        Prices, a mapping with some of ``"construct"``, ``"cell"`` (per droplet with cells),
        ``"lane"`` and ``"million_reads"``, in any currency; 0 by default. With ``"budget"``, the
        number of planned cells that this amount pays for is computed.
    key_added
        Name of the result.
    copy
        Whether to return a copy instead of writing to ``adata``.

    Returns
    -------
    ~anndata.AnnData or None
        ``None``, or the copy if ``copy=True``. Writes ``uns["loading"]`` with:

        - ``steps`` (table): numbers of cells, lanes and reads of each step, with a ``source``:
          ``"the plan"``, ``"this screen"``, ``"given"``, ``"typical"`` or empty (computed).
        - ``cost`` (table): cost per item; the last row is the sum.
        - ``words`` (text): what to load and, if there is a budget, what it pays for.
        - ``plan`` (text): digest of the plan.
        - ``params`` (mapping): the options of the call.

    Raises
    ------
    ValueError
        If there is no plan, or it is empty, or an option is unknown or out of range.

    Examples
    --------
    >>> import nextpert as npt
    >>> adata = npt.datasets.simulated_screen(n_control=200, n_perturbed=20, perturbed=["MYC"])
    >>> npt.tl.learn_dag(adata, method="given", dag=[("MYC", "STAT1"), ("STAT1", "B2M")])
    >>> npt.tl.fit_dag_blr(adata)
    >>> npt.tl.plan_screen(adata, {"STAT1": 0.5}, n_cells=3000, strategy="exploit")
    >>> npt.tl.plan_loading(adata, loading={"moi": 0.3}, costs={"lane": 1500})
    >>> steps = adata.uns["loading"]["steps"].set_index("quantity")["value"]
    >>> int(round(steps["cells_to_load"], -2)), int(steps["lanes"])
    (7800, 1)
    """
    # Read the plan, and what this screen shows about the library and the filters.
    plan = _adata.read_result(adata, key, "tl.plan_screen", what="plan", part="plate")
    plate, constructs, loading_options = plan["plate"], plan["constructs"], dict(loading or {})
    if not len(plate):
        message = (
            "The plan is empty, because the advice is to profile no cells: there is nothing to "
            "load. To fill a plan nevertheless, give strategy='exploit' to tl.plan_screen."
        )
        raise ValueError(message)
    experiment, prices = _Loading(**loading_options), vars(_Prices(**costs or {})).copy()
    budget = prices.pop("budget")
    if budget is not None and not any(prices[name] for name in ("cell", "lane", "million_reads")):
        message = (
            "costs has a budget, but no price that depends on the number of cells: add the price "
            "of a cell, a lane or a million reads."
        )
        raise ValueError(message)
    fit = _adata.read_stored(adata, str(plan["params"]["posterior_key"]), "tl.fit_dag_blr")
    roles = _adata.fitted_roles(adata, fit["params"])
    groups = labels = _adata.read_every_label(adata, roles)
    if by_guide := roles.guide_key is not None:
        groups = _adata.read_labels(adata, roles.guide_key, argument="guide_key")
    # There are more controls than cells of a perturbation by design: they do not show abundance.
    is_perturbed = (labels.codes >= 0) & (labels.groups([roles.control]) < 0)
    counts = np.bincount(groups.codes[(groups.codes >= 0) & is_perturbed])
    filtered = None if loading_options.keys() & {"moi", "kept"} else _share_filtered(adata)
    # Compute usable cells, their share, and lanes.
    n_planned, min_cells = int(plate["n_cells"].sum()), int(plan["params"]["min_cells"])
    planned = plate[plate["strategy"].astype(str) != "control"]
    n_guides = np.maximum(planned["n_guides"].to_numpy(float), 1)
    share = planned["n_cells"].to_numpy(float) / n_planned
    cv = abundance_cv(counts[counts > 0])
    cv_of_perturbation = cv / np.sqrt(n_guides) if by_guide else cv
    n_new = int((constructs["status"].astype(str) != "existing").sum())
    n_reach = cells_to_reach(REACH, share, min_cells, cv_of_perturbation)
    single, of_screen = share_single(experiment.moi), filtered is not None

    def load(n_planned: int) -> tuple[float, Lanes, dict[str, float]]:
        """Return usable cells, lanes, and the amounts to pay for, of a plan with these shares."""
        n_usable = max(float(n_planned), n_reach)
        lanes = lanes_for(
            n_usable,
            single * experiment.kept if filtered is None else filtered,
            droplets=experiment.droplets,
            max_captured=experiment.lane_cells,
            of_barcodes=of_screen,
        )
        barcodes = lanes.n * lanes.barcodes
        reads = barcodes * experiment.reads / 1e6
        return n_usable, lanes, dict(zip(prices, (n_new, barcodes, lanes.n, reads), strict=True))

    def cost_of(amounts: dict[str, float]) -> float:
        return sum(prices[name] * n for name, n in amounts.items())

    n_usable, used, amounts = load(n_planned)
    barcodes, million_reads, captured = (
        amounts["cell"],
        amounts["million_reads"],
        used.n * used.captured,
    )
    usable, doublets = n_usable / barcodes, 1 - used.singles / used.barcodes
    n_load, total = captured / experiment.recovery, cost_of(amounts)
    paid = None if budget is None else most_within(budget, lambda n: cost_of(load(n)[-1]))
    n_in_lanes = None if lanes is None else most_within(lanes, lambda n: load(n)[1].n)

    def of(name: str) -> str:
        return GIVEN if name in loading_options else TYPICAL

    rows: list[tuple[str, float, str, str]] = [
        ("planned_cells", n_planned, PLAN, "usable cells of the plan, controls included"),
        (
            "abundance_cv",
            cv,
            SCREEN,
            "coefficient of variation of the abundance of "
            f"{'guides' if by_guide else 'perturbations'}, beyond sampling",
        ),
        (
            "usable_cells",
            n_usable,
            "",
            f"usable cells with which {percent(REACH)} of the "
            f"perturbations reach {min_cells} cells, and no fewer than planned",
        ),
        (
            "share_reached",
            share_reached(n_usable, share, min_cells, cv_of_perturbation),
            "",
            f"share of the perturbations that reach {min_cells} cells",
        ),
        *(
            []
            if of_screen
            else [
                ("share_single", single, of("moi"), "share of transduced cells with one construct"),
                (
                    "share_kept",
                    experiment.kept,
                    of("kept"),
                    "share of cells with one construct whose "
                    "construct is detected and that pass filters",
                ),
            ]
        ),
        (
            "share_usable",
            usable,
            SCREEN if of_screen else "",
            "usable cells over droplets with cells",
        ),
        ("share_doublets", doublets, "", "share of droplets with cells that contain several"),
        ("droplets_with_cells", barcodes, "", "droplets that software counts as cells"),
        ("captured_cells", captured, "", "cells in droplets"),
        ("lanes", used.n, "", f"lanes of at most {experiment.lane_cells:,.0f} captured cells"),
        ("recovery", experiment.recovery, of("recovery"), "captured cells over cells loaded"),
        ("cells_to_load", n_load, "", "cells to load in all lanes"),
        ("cells_to_load_per_lane", n_load / used.n, "", "cells to load in each lane"),
        (
            "million_reads",
            million_reads,
            of("reads"),
            f"million reads, at {experiment.reads:,.0f} reads per droplet with cells",
        ),
        *(
            []
            if n_in_lanes is None
            else [
                (
                    "planned_cells_in_lanes",
                    n_in_lanes,
                    GIVEN,
                    f"planned cells that {lanes} lanes hold, with the shares of this plan",
                ),
            ]
        ),
        *(
            []
            if paid is None
            else [
                (
                    "planned_cells_paid",
                    paid,
                    GIVEN,
                    f"planned cells that the budget of {budget:,.0f} "
                    "pays for, with the shares of this plan",
                ),
            ]
        ),
    ]
    quantities, values, sources, meanings = zip(*rows, strict=True)
    table = pd.DataFrame(
        {
            "quantity": _adata.strings(quantities),
            "value": np.array(values, float),
            "source": _adata.strings(sources),
            "meaning": _adata.strings(meanings),
        }
    )
    n, price = np.array([[amounts[name], value] for name, value in prices.items()]).T
    cost = pd.DataFrame(
        {
            "item": _adata.strings([*prices, "total"]),
            "n": np.append(n, np.nan),
            "price": np.append(price, np.nan),
            "total": np.append(n * price, total),
        }
    )
    surplus_in_words = (
        f" (more than the {n_planned:,} planned, so that {percent(REACH)} of the perturbations "
    )
    surplus_in_words += f"reach {min_cells})"
    words = (
        f"Load {n_load:,.0f} cells in {used.n} lane{'s' * (used.n > 1)} to obtain "
        f"{n_usable:,.0f} usable cells{surplus_in_words * (round(n_usable) > n_planned)}: about "
        f"{barcodes:,.0f} droplets with cells ({percent(usable)} usable, {percent(doublets)} "
        f"doublets) and {million_reads:,.0f} million reads. {n_new} "
        f"{noun_of(constructs)}{'s' * (n_new != 1)} must be made"
    )
    words += f"; the total cost is {total:,.0f}." if total else "."
    if lanes is not None and n_in_lanes is not None:
        words += (
            f" {lanes} lane{'s' * (lanes > 1)} hold{'s' * (lanes == 1)} {n_in_lanes:,} planned "
            f"cells: npt.tl.plan_screen(..., n_cells={n_in_lanes})."
        )
    if budget is not None and paid is not None:
        words += f" {_budget_in_words(budget, budget - total, paid, min_cells)}"
    # Write.
    stored: dict[str, Any] = {
        **{name: plan[name] for name in ("cells", "fit") if name in plan},
        "plan": digest_of_plan(plan),
        "steps": table,
        "cost": cost,
        "words": words,
        "params": {
            "key": key,
            "posterior_key": str(plan["params"]["posterior_key"]),
            "n_lanes": lanes,
            **vars(experiment),
            **{f"cost_{name}": price for name, price in prices.items()},
            "cost_budget": budget,
        },
    }
    written = _adata.write_results(adata, uns={key_added: stored}, copy=copy)
    logger.info("%s", words)
    return written


def _budget_in_words(budget: float, remaining: float, paid: int, min_cells: int) -> str:
    """Return how many planned cells a budget pays for, and what remains of it after the plan."""
    call = f"npt.tl.plan_screen(..., n_cells={paid})"
    if remaining >= 0:
        return (
            f"Of the budget of {budget:,.0f}, {remaining:,.0f} remains; the budget would pay for "
            f"{paid:,} planned cells: {call}."
        )
    if not paid:
        return (
            f"The budget of {budget:,.0f} does not pay for {min_cells} cells of each perturbation: "
            f"plan fewer perturbations, or reduce min_cells."
        )
    return (
        f"The plan exceeds the budget of {budget:,.0f} by {-remaining:,.0f}; the budget pays for "
        f"{paid:,} planned cells: {call}."
    )


def _share_filtered(adata: ad.AnnData) -> float | None:
    """Return the share of all cells that the preprocessing kept; ``None`` if it is not known.

    It is not known if the file contained only cells that had passed filters before.
    """
    stored: Any = _adata.eager(adata.uns.get("preprocessing", {}))
    steps = stored.get("steps") if hasattr(stored, "get") else None
    if steps is None or "n_cells_kept" not in getattr(steps, "columns", ()) or len(steps) < 2:
        return None
    n_passing = steps["n_cells_kept"].to_numpy(float)
    return float(n_passing[-1] / n_passing[0]) if 0 < n_passing[-1] < n_passing[0] else None
