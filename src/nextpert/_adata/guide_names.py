"""Targets of guides from their names: the schemes of public libraries, tried against all names.

A scheme is a prefix, a pattern, and the text that joins the guides of a construct. Every scheme
reads all names at once. The one that explains most names wins, and then the one with most targets
among the measured genes, and then the one that gives several guides a target.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence

# "Nearly all": of 100 guides, five may have other names, such as those of positive controls.
MIN_EXPLAINED = 0.95
# Share of the names from which a prefix or a joining text belongs to the scheme.
_MIN_SHARE = 0.2
_SAMPLE = 1000  # about as many names, evenly spaced, show the scheme
PAIR = "+"

_SEQUENCE = r"[ACGTN]{15,}"
_MARK = r"(?:sg|g|sgRNA|gRNA|grna|guide)"
# Interference and activation of one gene are two perturbations: MYC_i1, MYC_a1.
_MODE = r"(?P<promoter>[ia])"
_OLIGO = r"_[A-Z]{3,4}_\d+(?:\.\d+)?"
_VECTOR = r"_p[A-Z]{1,3}\d+(?:-\d+)?"
# What may follow the name of a control: a number, a sequence, a letter, a vector.
_AFTER = (
    rf"(?:\(mod\))?(?:[-_ .]?(?:{_MARK}|[ia])?[-_ .]?\d*|[-_]{_SEQUENCE}|[-_][A-H]|\(\d+\)|"
    rf"{_VECTOR}|_[+-]_\d+(?:\.\d+)?|{_OLIGO})"
)
_CONTROLS = (
    r"non[-_ .]?targ(?:et(?:ing|ed)?)?(?:[-_ .]?(?:control|ctrl))?(?:[-_ .]?guide)?"
    r"(?:[-_ .]?for)?(?:[-_ .]?(?:human|mouse))?",
    r"no[-_ .]?target", r"ntc?", r"nt[-_ ]?(?:control|ctrl)", r"nc",
    r"(?:\d+x[-_])?neg(?:ative)?(?:[-_ .]?(?:ctrl|control)s?)?",
    r"safe(?:[-_ .]?(?:harbou?r|targeting|cutting|site))?", r"aavs1", r"rosa26",
    r"no[-_]site", r"one[-_]non[-_]gene[-_]site", r"(?:one[-_])?intergenic(?:[-_]site)?",
    r"e?gfp", r"lacz", r"luc(?:iferase)?", r"m?cherry", r"[rb]fp", r"tdtomato", r"gal4(?:-\d)?",
    r"scr(?:ambled?)?", r"c(?:on)?trl", r"control(?:[-_ .]?neg(?:ativ[eo])?)?", r"random",
    r"(?:empty|mock)(?:[-_ .]?vector)?", r"(?:neg(?:ativ)?[-_ .]?)?kontroll[ea]?",
    r"contr[oô]l(?:e|lo)", r"t[eé]moin", r"контроль", r"(?:阴性)?对照", r"対照", r"コントロール",
)  # fmt: skip
_CONTROL = re.compile(
    rf"(?:\d+_|0(?=safe))?(?P<stem>{'|'.join(_CONTROLS)})(?:_(?P=stem))*{_AFTER}", re.IGNORECASE
)

# Symbols with a hyphen or a dot, whose end is no number of a guide.
_HYPHENATED = re.compile(
    r"(?:HLA|MT|TRA|TRB|IGH|PCDH[A-Z0-9]+|H\d)-[A-Z0-9]+|(?:NKX|KRTAP)\d+-\d+|[A-Z0-9]+-(?:AS|IT|OT|DT)\d*|"
    r"ERV[A-Z0-9]+-\d+|MIR\d+[A-Z]?-\d|RP\d+-[A-Z0-9]+\.\d+|A[CLP]\d{6}\.\d+|"
    r"CT[A-D]-[A-Z0-9]+\.\d+|H2-[A-Za-z0-9]+"
)
# Longer human symbols exist, but so do ids of guides.
_HUMAN = re.compile(r"[A-Z][A-Z0-9]{1,11}|C\d+orf\d+|ENS[A-Z]*G\d{8,}")
_MOUSE = re.compile(r"[A-Z][a-z][a-z0-9]{0,11}|\d{7}[A-Z]\d{2}Rik|mt-\w+")
# Words and ids in names of guides that could be a symbol by their shape.
_NO_GENE = re.compile(
    r"(?:sg|sgrna|grna|guide|oligo|lib|library|target|gene|enh|enhancer|peak|element|promoter|"
    r"site|region|locus|pos|position|barcode|plasmid|pool|sample|cell|crispr|crop|perturb|"
    r"construct|chr[xy]?|brdn|drug|dmso|screen|tile|hto|adt|hashtag|plate|well|batch|donor|day|"
    r"dose|wt|wildtype|parental|untreated|blank|vector|none|unknown|ko|kd|mut|mutant)[a-h]?\d*",
    re.IGNORECASE,
)
# Barcodes, wells (B02) and variants (R175H) have the shape of a symbol; F11R is one.
_AMINO = "[ACDEFGHIKLMNPQRSTVWY]"
_ID = re.compile(rf"[ACGT]{{8,}}|[A-P]0\d|(?!F11R){_AMINO}\d{{2,4}}{_AMINO}")
_WELL = re.compile(r"[A-P]\d{1,2}")  # also C3, F9
# Controls of drugs: a number after the name of a drug is a dose.
_VEHICLE = re.compile(r"(?:dmso|vehicle|pbs|ethanol|etoh|untreated)(?:[-_ .].*)?", re.IGNORECASE)
_NUMBERED = re.compile(r"[-_. ]?[A-Za-z]?\d+$")


@dataclass(frozen=True)
class Genes:
    """The names of the measured genes, and what looks like the name of a gene."""

    measured: Collection[str] = frozenset()
    is_mouse: bool = False

    @classmethod
    def of(cls, names: Iterable[str]) -> Genes:
        """Return the genes of these names; most mouse symbols begin with a capital alone."""
        measured = frozenset(str(name) for name in names)
        n_mouse = sum(_MOUSE.fullmatch(x) is not None or x.startswith("ENSMUSG") for x in measured)
        return cls(measured, 2 * n_mouse > len(measured))

    def has(self, name: str) -> bool:
        """Return whether a name is that of a measured gene, or looks like a gene's."""
        return name in self.measured or self._has_shape(name)

    def _has_shape(self, name: str) -> bool:
        if any(shape.fullmatch(name) for shape in (_NO_GENE, _CONTROL, _ID)):
            return False
        shapes = (_HYPHENATED, _HUMAN, _MOUSE) if self.is_mouse else (_HYPHENATED, _HUMAN)
        return any(shape.fullmatch(name) for shape in shapes)

    def is_whole(self, name: str) -> bool:
        """Return whether a name is that of a gene as a whole, although a guide's could be so."""
        return name in self.measured or _HYPHENATED.fullmatch(name) is not None

    def is_numbered(self, name: str) -> bool:
        """Return whether a name is that of a measured gene with a number: STAT11 for STAT1."""
        bare = _NUMBERED.sub("", name)
        return name not in self.measured and (bare in self.measured or name[:-1] in self.measured)


class Pattern(NamedTuple):
    """A pattern of names: how it is shown, and a regular expression with the group ``target``."""

    shown: str
    regex: re.Pattern[str]


def _pattern(shown: str, regex: str) -> Pattern:
    gene = r"(?P<target>[A-Za-z0-9][A-Za-z0-9.@-]*?)"
    return Pattern(shown, re.compile(regex.replace("GENE", gene)))


_POSITION = r"_[+-]_\d+(?:\.\d+)?(?:-(?P<promoter>P\d(?:P\d)*|all|ENST\d+))?"
ALONE = _pattern("GENE", "GENE")
GLUED = _pattern("GENEg1", r"GENE(?:g|sg|sgRNA|gRNA)\d+")
_MIN_GLUED = 3  # letters of a mouse symbol before a g: Rag1 is a gene, and no guide of another
PATTERNS = (
    ALONE,
    _pattern("GENE_1", rf"GENE[-_. ](?:(?:{_MARK}|{_MODE})[-_. ]?)?\d+"),
    GLUED,
    _pattern("GENE-A", r"GENE[-_][A-H]"),
    # CRISPRi v2 (Horlbeck 2016); TAP-seq mixes it with letters.
    _pattern("GENE_+_123.23-P1P2 or GENE-A", rf"GENE(?:{_POSITION}|-[A-H])"),
    _pattern("GENE_SEQUENCE", rf"GENE[-_]{_SEQUENCE}"),  # TKOv3
    _pattern("GENE_1_SEQUENCE", rf"GENE[-_. ](?:{_MARK}[-_. ]?)?\d+[-_]{_SEQUENCE}"),
    _pattern("chr1:1-20_GENE_+", r"chr\w+[:_-]\d+[-_]\d+_GENE(?:_[+-])?"),  # TKOv1
    _pattern("GENE_CCDS1.1_ex1_...", r"GENE_(?:CCDS|ENST|NM_|XM_)\d[\w.]*_.+"),  # Yusa
    _pattern("1_GENE", r"\d+_GENE(?:_(?P<promoter>P\d(?:P\d)*)_ENS[A-Z]*G\d+)?"),  # Replogle
    # Morgens 2017 adds the sublibrary: ENSMUSG00000026878_Rab14_SPA_50369.1.
    _pattern("ENSG_GENE_1", rf"ENS[A-Z]*G\d{{8,}}(?:\.\d+)?_GENE(?:[-_]\d+|{_OLIGO})?"),
    _pattern("GENE(1)", r"GENE ?\(\d+\)"),
    _pattern("GENE_pDS1", rf"GENE(?:\(mod\))?{_VECTOR}"),  # Adamson 2016
)
_JOINS = ("__", "|", ";", "+", "_")
_SINGLE_GUIDE = re.compile(r"(?P<prefix>(?:p_)?(?:sg|gRNA|sgRNA)[-_ ]?)")
_LIBRARY = re.compile(r"(?P<prefix>[A-Za-z_]*?[Ll]ib(?:rary)?_)")


# A prefix and how it is shown, the text that joins guides, the pattern of one guide.
Scheme = tuple[re.Pattern[str], str, str, Pattern]


class Read(NamedTuple):
    """What a scheme makes of a name: targets (none for a control), the control's name, promoter."""

    targets: tuple[str, ...]
    control: str = ""
    promoter: str = ""


@dataclass
class Reading:
    """What a scheme makes of all names: ``found``, by name; a name not explained is not there."""

    scheme: str
    names: list[str]
    found: dict[str, Read] = field(default_factory=dict)

    @property
    def doubtful(self) -> list[str]:
        """The names that the scheme does not explain."""
        return [name for name in self.names if name not in self.found]

    @property
    def explained(self) -> float:
        """The share of the names that the scheme explains."""
        return len(self.found) / max(len(self.names), 1)

    def shared_genes(self) -> dict[str, list[str]]:
        """Return genes of several labels: promoters, spellings, and names not explained."""
        labels: dict[str, set[str]] = {}
        for read in self.found.values():
            for target in read.targets:
                label = f"{target}_{read.promoter}" if read.promoter else target
                labels.setdefault(target.upper(), set()).add(label)
        for name in self.doubtful:
            for part in {part.upper() for part in re.split(r"[-_.:| ]", name)} & set(labels):
                labels[part].add(name)
        return {gene: sorted(shared) for gene, shared in labels.items() if len(shared) > 1}

    def target_of(self, name: str) -> str:
        """Return the target of a guide, the name of a control, or the whole name if in doubt."""
        read = self.found.get(name, Read((name,)))
        return PAIR.join(sorted(read.targets)) or read.control


@lru_cache(maxsize=2**18)
def control_name(name: str) -> str:
    """Return the name of the control that a guide or target is, or an empty text.

    Examples
    --------
    >>> from nextpert._adata.guide_names import control_name
    >>> [control_name(x) for x in ("NTg1", "NT5E_1", "NegCtrl0", "NO_SITE_694", "LacZ_2", "MYC")]
    ['NT', '', 'NegCtrl', 'NO_SITE', 'LacZ', '']
    """
    match = _CONTROL.fullmatch(name.strip())
    return match["stem"] if match else ""


def read_names(names: Sequence[str], genes: Genes) -> Reading:
    """Return what the best scheme makes of the names of all guides.

    Examples
    --------
    >>> from nextpert._adata.guide_names import Genes, read_names
    >>> names = ["lib_sgMYC-1", "lib_sgMYC-2", "lib_sgHLA-A-1", "lib_sgNT-1"]
    >>> found = read_names(names, Genes.of(["MYC", "JUN"]))
    >>> found.scheme, [found.target_of(name) for name in names]
    ('lib_sgGENE_1', ['MYC', 'MYC', 'HLA-A', 'NT'])
    """
    min_names = _MIN_SHARE * len(names)
    joins = [join for join in _JOINS if sum(join in name for name in names) >= min_names]
    schemes = [
        (prefix, shown, join, pattern)
        for prefix, shown in _prefixes(names, genes)
        for join in ("", *joins)
        for pattern in PATTERNS
    ]
    # A sample tells which schemes are far off, so that many names take seconds.
    sample = names[:: max(len(names) // _SAMPLE, 1)]
    shares = [_read_all(sample, scheme, genes).explained for scheme in schemes]
    best, best_score = Reading("GENE", list(names)), (-1.0, 0, 0.0)
    for scheme, share in zip(schemes, shares, strict=True):
        if 2 * share < max(shares):
            continue
        reading = _read_all(names, scheme, genes)
        _require_proof(reading, genes, is_whole=scheme[3] is ALONE and scheme[2] != "__")
        score = _score(reading, genes)
        if score > best_score:
            best, best_score = reading, score
    return best


def _prefixes(names: Sequence[str], genes: Genes) -> Iterator[tuple[re.Pattern[str], str]]:
    """Yield prefixes that may be left out, and how they are shown: none, common, of a guide."""
    plain = [name for name in names if not control_name(name)]
    first, last = (min(plain), max(plain)) if len(plain) > 2 else ("", "")
    n_same = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    shared_part = first[:n_same]
    common = shared_part[: max(shared_part.rfind(mark) for mark in "_-.: ") + 1]
    if {common[:-1], *re.split("[-_.: ]", common)} & set(genes.measured):
        common = ""  # all names are of one gene, such as its variants
    n_plain = max(len(plain), 1)
    for start in dict.fromkeys(("", common)):
        cut = [name.removeprefix(start) for name in plain]
        yield re.compile(f"(?:{re.escape(start)})?"), start
        for regex, shown in ((_SINGLE_GUIDE, ""), (_LIBRARY, "library_")):
            prefixes = [match["prefix"] for name in cut if (match := regex.match(name))]
            if len(prefixes) >= _MIN_SHARE * n_plain:
                usual = shown or Counter(prefixes).most_common(1)[0][0]
                text = rf"(?:{re.escape(start)})?(?:{regex.pattern})?"
                yield re.compile(text), f"{start}{usual}"


def _read_all(names: Sequence[str], scheme: Scheme, genes: Genes) -> Reading:
    """Return what a scheme makes of all names."""
    cut, before, join, pattern = scheme
    shown = f"{before}{pattern.shown}"
    reading = Reading(f"{shown}{join}{shown}" if join else shown, list(names))
    pairs: dict[str, Read] = {}
    for name in names:
        parts = _parts(name if control_name(name) else cut.sub("", name, count=1), join)
        read = [_read_one(cut.sub("", part, count=1), pattern, genes) for part in parts]
        if (found := _construct([part for part in read if part is not None])) and None not in read:
            (reading.found if len(found.targets) < 2 else pairs)[name] = found
    # A pair only if both sides are targets: measured, or the target of another guide, or if the
    # name says so twice (A_B__A_B).
    alone = {read.targets[0] for read in reading.found.values() if read.targets}
    for name, pair in pairs.items():
        is_known = all(x in alone or x in genes.measured for x in pair.targets)
        if len(pair.targets) == 2 and (is_known or join == "__"):
            reading.found[name] = pair
    _forget_promoters(reading)
    return reading


def _construct(guides: Sequence[Read]) -> Read | None:
    """Return what the guides of a construct have in common, or ``None`` if there are none."""
    if not guides:
        return None
    targets = tuple(dict.fromkeys(target for guide in guides for target in guide.targets))
    control = next((guide.control for guide in guides if guide.control), "")
    promoters = {guide.promoter for guide in guides if guide.targets} - {""}
    return Read(targets, "" if targets else control, "/".join(sorted(promoters)))


def _forget_promoters(reading: Reading) -> None:
    """Forget the promoter of genes with one promoter, which needs no name."""
    promoters_of: dict[str, set[str]] = {}
    for read in reading.found.values():
        for target in read.targets:
            promoters_of.setdefault(target, set()).add(read.promoter)
    for name, read in reading.found.items():
        if read.promoter and all(len(promoters_of[target]) == 1 for target in read.targets):
            reading.found[name] = read._replace(promoter="")


def _parts(name: str, join: str) -> list[str]:
    """Return the guides of a construct; ``A_B__A_B`` has the guides A and B."""
    if not join or join not in name or control_name(name):
        return [name]
    parts = name.split(join)
    if join == "__":
        return parts[0].split("_") if len(set(parts)) == 1 else []
    return parts


def _read_one(name: str, pattern: Pattern, genes: Genes) -> Read | None:
    """Return what a pattern makes of one guide, ``None`` if it does not explain it."""
    if control := control_name(name):
        return Read((), control)
    if not (match := pattern.regex.fullmatch(name)):
        return None
    target = match["target"]
    if control := control_name(target):
        return Read((), control)
    if not genes.has(target) or (pattern is not ALONE and genes.is_whole(name)):
        return None
    if pattern is ALONE and genes.is_numbered(name):
        return None
    is_short = len(target) < _MIN_GLUED and _HUMAN.fullmatch(target) is None
    if pattern is GLUED and is_short and target not in genes.measured:
        return None
    return Read((target,), "", match.groupdict().get("promoter") or "")


def _require_proof(reading: Reading, genes: Genes, *, is_whole: bool) -> None:
    """Forget a reading that no evidence supports."""
    targets = [read.targets for read in reading.found.values() if read.targets]
    n_measured = sum(set(targets_of_one) <= set(genes.measured) for targets_of_one in targets)
    # Where nothing is taken away, only measured genes show that the names are targets.
    is_unproven = is_whole and 2 * n_measured < len(targets)
    # One text before all numbers is the name of the library.
    is_library = not n_measured and len(set(targets)) == 1 and len(targets) > 3
    is_wells = not n_measured and all(
        _WELL.fullmatch(x) for targets_of_one in targets for x in targets_of_one
    )
    is_drugs = any(_VEHICLE.fullmatch(name) for name in reading.names)
    if is_unproven or is_library or is_drugs or (targets and is_wells):
        reading.found.clear()


def _score(reading: Reading, genes: Genes) -> tuple[float, int, float]:
    """Return the names explained, those with measured targets, and how often targets repeat."""
    targets = Counter(read.targets for read in reading.found.values() if read.targets)
    n_measured = sum(
        n for targets_of_one, n in targets.items() if set(targets_of_one) <= set(genes.measured)
    )
    repeats = min(targets.total() / max(len(targets), 1), 2.0)
    return round(reading.explained, 6), n_measured, repeats
