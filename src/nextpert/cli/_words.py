"""Messages of the functions in the words of the command: options for Python's arguments."""

from __future__ import annotations

import re
from functools import partial

_OPTIONS = {
    name: f"--{name.replace('_', '-')}"
    for name in (
        "perturbation_key", "control", "layer", "genes", "method", "dag", "alpha",
        "environments", "penalty", "n_runs", "n_graphs", "targets_first", "n_jobs", "before",
        "tiers", "required", "forbidden", "perturbations", "shift", "shift_sd", "guide_key",
        "separator", "prior_scale", "prior_units", "noise_var", "acquisition", "candidates",
        "target", "n_cells", "n_samples", "depth_key", "gene_symbols", "prior_network",
        "checkpoint", "prior_effects",
    )
} | {"intercept": "--no-intercept", "noise_aware": "--no-noise-aware", "rng": "--seed"}  # fmt: skip
_ANY = "|".join(sorted(_OPTIONS, key=len, reverse=True))
_LONG = "|".join(name for name in _OPTIONS if "_" in name)
# Words such as "control" are arguments only where the sentence uses them as one.
_PATTERNS = (
    (re.compile(rf"(?<![\w.-])({_ANY})=\[.*?\]"), r"{} NAME ..."),
    (re.compile(rf"(?<![\w.-])({_ANY})=([\"']?)([\w.+-]+)\2"), r"{} \3"),
    (re.compile(rf"(?<![\w.'\"-])({_LONG})(?![\w'\"])"), r"{}"),
    (
        re.compile(
            rf"((?:^|[.:;,(] ?)(?:or )?)({_ANY})(?= (?:must|names?|has|holds?|needs|is|and)\b)"
        ),
        r"\1{}",
    ),
    (re.compile(rf"(\b(?:with|in) )({_ANY})(?=[.,;:)]|$)"), r"\1{}"),
)


def as_options(message: str) -> str:
    """Return a message with options in the place of the arguments of Python functions.

    Examples
    --------
    >>> from nextpert.cli._words import as_options
    >>> as_options("No control cells: name the label of the unperturbed cells with control.")
    'No control cells: name the label of the unperturbed cells with --control.'
    >>> as_options('n_runs must be a whole number of at least 1, or use method="boss".')
    '--n-runs must be a whole number of at least 1, or use --method boss.'
    """
    for pattern, template in _PATTERNS:
        message = pattern.sub(partial(_fill, template=template), message)
    return message


def _fill(found: re.Match[str], template: str) -> str:
    option = next(_OPTIONS[group] for group in found.groups() if group in _OPTIONS)
    return found.expand(template.replace("{}", option))
