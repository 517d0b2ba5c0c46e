"""Which perturbations a fit uses, and which it leaves out and why."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from nextpert._adata.labels import (
    NAMES_NONE,
    say_left_out,
    say_pooled,
)
from nextpert._adata.panel import closest, guide_hint, id_hint
from nextpert._adata.read import slot
from nextpert._warn import warn
from nextpert.core._checks import list_names
from nextpert.core._codec import strings
from nextpert.core.fit.interventions import Plan
from nextpert.core.fit.naming import Naming
from nextpert.core.model.effects import speaks_of_knockouts
from nextpert.core.screen.departures import USUAL_VARIANCE
from nextpert.study.shifts import read_table

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from nextpert._adata.labels import LabelTable
    from nextpert.core import Moments
    from nextpert.core.fit.interventions import Interventions, Reasons
    from nextpert.core.screen.departures import GuideSpread


logger = logging.getLogger(__name__)

_MAX_NAMED = 10  # perturbations in a message
# Degrees of freedom of the variance between guides, below which users are warned.
_MIN_GUIDE_FREEDOM = 2


def plan_environments(
    labels: LabelTable,
    genes: Sequence[str],
    *,
    measured: Sequence[str],
    perturbations: Sequence[str] | None,
    shift: Any,
    include_all: bool = False,
    argument: str = "perturbations",
) -> Plan:
    """Choose the labels whose shift is known on the panel, or all labels with ``include_all``.

    ``labels`` come from :func:`~nextpert._adata.labels.read_perturbations`; ``argument`` is the
    name of ``perturbations`` in errors.
    """
    naming = replace(labels.naming or Naming(), genes=set(genes))
    requested = labels.perturbations(perturbations, argument)
    n_unlabelled = int((labels.codes < 0).sum()) - sum(labels.left_out.values())
    if n_unlabelled:
        logger.warning(
            "%d of %d cells have no label (missing in adata.obs[%r]): only targets use them.",
            n_unlabelled,
            len(labels.codes),
            labels.key,
        )
    if labels.pooled:
        say_pooled(labels)
    left_out: Reasons = []
    if perturbations is None:
        say_left_out(labels.left_out, labels.key)
        left_out = [(name, NAMES_NONE) for name in labels.left_out]
    if not isinstance(shift, str):
        table = read_table(shift, genes, labels.spelled, naming.control)
        labels.require(table.names, "Perturbations of the table of shifts")
        rows = {name: row for row, name in enumerate(table.names)}
        used = [name for name in requested if include_all or name in rows]
        left_out += [
            (name, "no row in the table of shifts") for name in requested if name not in used
        ]
        targets = [table.targets[rows[name]] if name in rows else [] for name in used]
        return Plan(used, targets, left_out, table)
    measured_genes = set(measured)
    names: list[str] = []
    inside_all: list[list[str]] = []
    absent: list[str] = []
    unmeasured: Reasons = []
    for name in requested:
        inside, outside = naming.targets(name)
        if outside or not inside:
            reasons = unmeasured if include_all else left_out
            reasons.append((name, _reason(outside or [name], measured_genes)))
            absent += [gene for gene in outside if gene not in measured_genes]
        if include_all or not (outside or not inside):
            names.append(name)
            inside_all.append(inside)
    hint = (guide_hint(absent, measured_genes) + id_hint(absent, measured)) if absent else ""
    return Plan(names, inside_all, left_out, shift, hint, unmeasured)


def _reason(outside: Sequence[str], measured: Collection[str]) -> str:
    absent = [gene for gene in outside if gene not in measured]
    if absent:
        return f"not measured: {list_names(absent)}"
    return f"measured but outside the panel: {list_names(outside)}"


def require_varying(control: Moments, genes: Sequence[str], cells: str = "control cells") -> None:
    """Raise if a gene of the panel is constant among the control cells, or among ``cells``."""
    constant = [genes[i] for i in control.constant_nodes()]
    if constant:
        message = f"Genes constant among the {control.n} {cells}: {list_names(constant)}. "
        raise ValueError(message + "Drop these genes.")


def warn_other_layer(layer: str | None, graph: Any) -> None:
    """Warn if a graph stored in ``.uns`` was learned on a layer other than ``layer``."""
    params: Any = graph.get("params") if hasattr(graph, "get") else None
    if hasattr(params, "get") and params.get("method", "given") != "given":
        learned = params.get("layer")
        if learned != layer:
            message = (
                f"The graph was learned on {slot(learned)}, but this call reads {slot(layer)}: "
                f"declare one layer with pp.setup_screen and learn the graph again."
            )
            warn(message)


def report(plan: Plan, confounded: Sequence[str] = ()) -> None:
    """Report labels that were left out, targets that are not measured, and confounding by batches.

    ``confounded`` are perturbations whose effects cannot be separated from batch effects.
    """
    if plan.left_out:
        message = f"Perturbations left out of the fit: {_by_reason(plan.left_out)}.{plan.hint}"
        warn(message)
    if plan.unmeasured:
        message = (
            f"Perturbations without a target on the panel: {len(plan.unmeasured)}. Their effects "
            f"are estimated from their cells only: {_by_reason(plan.unmeasured)}."
        )
        if plan.hint:  # a name looks wrong
            warn(message + plan.hint)
        else:
            logger.info("%s", message)
    if confounded:
        warn(
            f"Batches without control cells confound the effects of {list_names(confounded)}: what "
            f"the perturbations of such a batch share is attributed to it. Add control cells "
            f"from these batches, or leave these perturbations out."
        )


def warn_assumed_guides(spread: GuideSpread, key: str) -> None:
    """Warn if hardly any guides could be compared, so that their variance is assumed."""
    if spread.freedom >= _MIN_GUIDE_FREEDOM:
        return
    if spread.freedom:
        problem = (
            f"Only two guides of adata.obs[{key!r}] can be compared with another of the same "
            f"perturbation (or of the controls), so that the variance between guides is uncertain"
        )
    else:
        problem = (
            f"No two guides of adata.obs[{key!r}] belong to the same perturbation (or to the "
            f"controls), so that the variance between guides cannot be estimated: that of two real "
            f"screens is assumed ({USUAL_VARIANCE:.2g} of the variance of a cell)"
        )
    warn(
        f"{problem}. If guides of this screen differ more, effects called significant may be "
        f"false: use two or more guides per perturbation, and at least four control guides."
    )


def _by_reason(reasons: Reasons) -> str:
    """Return names, grouped by reason: ``"ATF2, HS2 (not measured) and 27 more"``."""
    named: dict[str, list[str]] = {}
    for name, reason in reasons[:_MAX_NAMED]:
        # If the gene is the label itself, it is not repeated.
        why, _, genes = reason.partition(": ")
        named.setdefault(why if genes == name else reason, []).append(name or "(empty)")
    shown = "; ".join(f"{', '.join(names)} ({why})" for why, names in named.items())
    n_unnamed = len(reasons) - _MAX_NAMED
    return f"{shown} and {n_unnamed} more" if n_unnamed > 0 else shown


def warn_hardly_expressed(used: Interventions, control: Moments, genes: Sequence[str]) -> None:
    """Warn of knocked-out genes whose control mean is below 0.1 standard deviations."""
    knocked_out = {
        gene
        for names, source in zip(used.targets, used.sources, strict=True)
        for gene in names
        if source == "knockout"
    }
    speaks = speaks_of_knockouts(np.abs(control.mean), np.sqrt(control.variance))
    pairs = zip(genes, speaks.tolist(), strict=True)
    weak = [gene for gene, says in pairs if gene in knocked_out and not says]
    if weak:
        warn(
            f"These genes have a control mean near 0, so that a knockout hardly shifts them: "
            f"{list_names(weak)}. Leave out the knockouts of these genes, learn their shifts "
            f"(shift_sd='learned'), or give a table of shifts."
        )


def environment_table(
    used: Interventions, genes: Sequence[str], n_cells: Sequence[int]
) -> pd.DataFrame:
    """Return one row per perturbation: label, target genes, shift, its source, cells."""
    return pd.DataFrame(
        {
            "perturbation": strings(used.names),
            "target_genes": strings(", ".join(targets) for targets in used.targets),
            "shift": strings(used.readable(genes)),
            "shift_source": strings(used.sources),
            "n_cells": np.array(n_cells, dtype=np.int64),
        },
        index=pd.Index(np.arange(len(used.names))),
    )


def unknown_genes(label: str, outside: Sequence[str], genes: Sequence[str]) -> str:
    """Return the message about a label that names genes outside the panel."""
    return (
        f"{label!r} names genes outside the panel of the posterior: {list_names(outside)}."
        f"{closest(outside, genes)} Name only genes of the panel."
    )
