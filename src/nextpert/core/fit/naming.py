"""Members of combinations by their labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from numpy.typing import NDArray

    Array = NDArray[np.float64]

T = TypeVar("T")

SEPARATOR = "+"  # joins the members of a combination, unless another is named


@dataclass(frozen=True)
class Naming:
    """What labels say: which members, which targets, and which labels name the same perturbation.

    A combination is the set of its members. All labels are compared by :meth:`key`. Where two are
    the same, the spelling of the data is shown, so names that users give are first written as the
    data has them (:meth:`spelled`).

    Parameters
    ----------
    genes
        Genes, whose names are never split.
    separator
        What joins the members of a label; empty where none does.
    control
        Label of the controls.
    """

    genes: Container[str] = frozenset()
    separator: str = SEPARATOR
    control: str = "control"

    def members(self, label: str) -> tuple[str, ...]:
        """Return the members that a label names, sorted: one for single perturbations.

        ``"B+A"`` is ``"A+B"``, and the label of the controls is no member. A label is never split
        that is itself a gene, or that does not join two names (``"IFNG+"``).
        """
        # A+B and B+A are one; the controls are no member.
        named = {part.strip() for part in self._parts(label)}
        return tuple(sorted(({label.strip()} if "" in named else named) - {self.control, ""}))

    def repeats(self, label: str) -> bool:
        """Whether a label names a member more than once."""
        parts = self._parts(label)
        return len(set(parts)) < len(parts)

    def targets(self, label: str) -> tuple[list[str], list[str]]:
        """Return the genes that a label targets, and those of its parts that are none of ``genes``.

        A part that is the label of the controls says nothing: ``"MYC+control"`` targets MYC alone.
        """
        named = [p for p in dict.fromkeys(self._parts(label)) if p and p != self.control]
        return [p for p in named if p in self.genes], [p for p in named if p not in self.genes]

    def _parts(self, label: str) -> list[str]:
        """Return the parts of a label; a label that is itself a gene is never split."""
        whole = label in self.genes or not self.separator
        return [label] if whole else list(map(str.strip, label.split(self.separator)))

    def key(self, label: str) -> tuple[str, ...]:
        """Return what all labels of one perturbation share: its members, if it has any."""
        return self.members(label) or (label,)

    def spelled(self, labels: Iterable[str], known: Iterable[str] = ()) -> list[str]:
        """Return every label as the first of ``known`` and of ``labels`` that names the same."""
        # The first spelling of each set of members stands for all.
        first: dict[tuple[str, ...], str] = {}
        given = list(known)
        n_known, out = len(given), []
        for label in (*given, *labels):
            out.append(first.setdefault(self.members(label) or (label,), label))
        return out[n_known:]

    def renamed(self, given: Mapping[str, T], known: Iterable[str], what: str) -> dict[str, T]:
        """Return a mapping of labels with these spelled as ``known`` ones.

        Raises
        ------
        ValueError
            If two of its labels name the same; ``what`` says whose they are.
        """
        names = [str(name) for name in given]
        self.require_distinct(names, what)
        return dict(zip(self.spelled(names, known), given.values(), strict=True))

    def require_distinct(self, labels: Iterable[str], what: str) -> None:
        """Raise if two labels name the same."""
        some = list(labels)
        for first, label in zip(self.spelled(some), some, strict=True):
            if first != label:
                message = (
                    f"{what} names one perturbation more than once: {first} and {label}. Give it "
                    f"one row."
                )
                raise ValueError(message)


def places(groups: Iterable[Sequence[str]], genes: Sequence[str]) -> list[list[int]]:
    """Return the positions on a panel of the genes of each group, such as the targets of one."""
    place = {gene: i for i, gene in enumerate(genes)}
    return [[place[gene] for gene in group] for group in groups]


def numbered(
    labels: Iterable[tuple[str, ...]], first: Sequence[str] = ()
) -> tuple[list[str], list[tuple[int, ...]]]:
    """Return all members, ``first`` ones first, and the members of every label by number."""
    some = list(labels)
    names = list(dict.fromkeys([*first, *(name for members in some for name in members)]))
    place = {name: k for k, name in enumerate(names)}
    return names, [tuple(place[name] for name in members) for members in some]
