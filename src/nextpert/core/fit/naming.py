"""Members of combinations, from their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

T = TypeVar("T")

SEPARATOR = "+"  # joins the members of a combination by default


@dataclass(frozen=True)
class Naming:
    """The meaning of labels: members, targets, and which labels name the same perturbation.

    A combination is the set of its members. Labels are compared by :meth:`key`. Of equivalent
    labels, the spelling in the data is shown; names from users are therefore first converted to
    this spelling (:meth:`spelled`).

    Parameters
    ----------
    genes
        Genes, whose names are never split.
    separator
        Text that joins the members of a label; empty if labels have no separator.
    control
        Label of the controls.
    """

    genes: Container[str] = frozenset()
    separator: str = SEPARATOR
    control: str = "control"

    def members(self, label: str) -> tuple[str, ...]:
        """Return the members that a label names, sorted; a single perturbation has one.

        ``"B+A"`` equals ``"A+B"``, and the label of the controls is not a member. A label that is
        itself a gene, or that does not join two names (``"IFNG+"``), is never split.
        """
        # A+B equals B+A; the label of the controls is not a member.
        named = {part.strip() for part in self._parts(label)}
        return tuple(sorted(({label.strip()} if "" in named else named) - {self.control, ""}))

    def repeats(self, label: str) -> bool:
        """Whether a label names a member more than once."""
        parts = self._parts(label)
        return len(set(parts)) < len(parts)

    def targets(self, label: str) -> tuple[list[str], list[str]]:
        """Return the genes that a label targets, and its parts that are not in ``genes``.

        The label of the controls is ignored as a part: ``"MYC+control"`` targets only MYC.
        """
        named = [p for p in dict.fromkeys(self._parts(label)) if p and p != self.control]
        return [p for p in named if p in self.genes], [p for p in named if p not in self.genes]

    def _parts(self, label: str) -> list[str]:
        """Return the parts of a label; a label that is itself a gene is never split."""
        is_whole = label in self.genes or not self.separator
        return [label] if is_whole else list(map(str.strip, label.split(self.separator)))

    def key(self, label: str) -> tuple[str, ...]:
        """Return the key that all labels of a perturbation share: its members, or the label."""
        return self.members(label) or (label,)

    def spelled(self, labels: Iterable[str], preferred: Iterable[str] = ()) -> list[str]:
        """Replace labels by the first equivalent label in ``preferred`` and then ``labels``."""
        # The first spelling of each set of members replaces all others.
        first: dict[tuple[str, ...], str] = {}
        preferred_labels = list(preferred)
        n_known = len(preferred_labels)
        out = []
        for label in (*preferred_labels, *labels):
            out.append(first.setdefault(self.members(label) or (label,), label))
        return out[n_known:]

    def renamed(
        self, values: Mapping[str, T], preferred: Iterable[str], title: str
    ) -> dict[str, T]:
        """Return a mapping whose labels are spelled as in ``preferred``.

        Raises
        ------
        ValueError
            If two labels name the same perturbation; ``title`` names the mapping in the error.
        """
        names = [str(name) for name in values]
        for first, label in zip(self.spelled(names), names, strict=True):
            if first != label:
                message = (
                    f"{title} names one perturbation more than once: {first} and {label}. Give it "
                    f"one row."
                )
                raise ValueError(message)
        return dict(zip(self.spelled(names, preferred), values.values(), strict=True))


def places(groups: Iterable[Sequence[str]], genes: Sequence[str]) -> list[list[int]]:
    """Return the panel positions of the genes of each group, such as a perturbation's targets."""
    position = {gene: i for i, gene in enumerate(genes)}
    return [[position[gene] for gene in group] for group in groups]


def numbered(
    labels: Iterable[tuple[str, ...]], first: Sequence[str] = ()
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return all distinct members, beginning with ``first``, and every label's member numbers."""
    all_labels = list(labels)
    names = list(dict.fromkeys([*first, *(name for members in all_labels for name in members)]))
    position = {name: k for k, name in enumerate(names)}
    return names, [tuple(position[name] for name in members) for members in all_labels]
