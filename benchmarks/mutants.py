"""Do the tests see a fault? Small faults put into the core's rooms, one at a time.

A mutant is one line changed by an operator of cosmic-ray (MIT): another sign, another comparison, a
number one off. Drawn at random, as many in each room (of the core, or tl, _adata, pp), at most one
at a place. Left out: files compiled by numba, signatures, annotations, docstrings, and changes that
would only raise (a shift of bits for a sum). A mutant stands in a copy of the sources, and the
tests of its room run: those that name its file and the file's doctest first, quick ones before slow
ones, up to the first that fails. A test is given five times the seconds of processor that it takes
without a mutant, and 20.

    pip install cosmic-ray
    python -m benchmarks.mutants --rooms model design --n 135 --seed 0   # 1-2 hours
    python -m benchmarks.mutants --again    # those that survived once more, after tests were added
    python -m benchmarks.mutants --command 'pytest -q -n auto'    # survivors against the core set

With a command, all survivors stand in the sources at once; what fails then is run once more with
each of them alone. So a set of tests runs once, not once for every survivor.

Every mutant is in the CSV as soon as it was run, so a run that was stopped goes on; another --table
draws anew, from the sources as they are. Its last column, what was made of a survivor, is written
by hand; the Markdown beside it is made of it each time.
"""

from __future__ import annotations

import argparse
import ast
import csv
import shlex
import tempfile
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._mutant_trial import PACKAGE, ROOT, Together, Trial, place_of

FIELDS = ("room", "file", "line", "operator", "before", "after", "outcome", "by", "seconds",
          "verdict")  # fmt: skip
OUTCOMES = ("killed", "timed out", "survived", "killed since")
ARITHMETIC, BITS = {"Add", "Sub", "Mul", "Div"}, {"BitOr", "BitAnd", "BitXor"}
Mutant = dict[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Draw the mutants, or go on with those drawn, and write both tables."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.mutants", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--rooms", nargs="+", default=["model", "design"])
    parser.add_argument("--n", type=int, default=135, help="mutants, over all rooms")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", type=Path, default=ROOT / "benchmarks/results/mutants.csv")
    parser.add_argument("--again", action="store_true", help="run what survived once more")
    parser.add_argument("--command", help="run the survivors of all rooms against these tests")
    args = parser.parse_args(arguments)
    if not args.table.exists():
        write(args.table, draw(args.rooms, args.n, args.seed))
    if args.command:
        again(args.table, args.command)
        args.rooms = []
    waiting = "survived" if args.again else ""
    with tempfile.TemporaryDirectory() as scratch:
        for room in args.rooms:
            todo = [m for m in read(args.table) if (m["room"], m["outcome"]) == (room, waiting)]
            trial = Trial(Path(scratch) / room, room) if todo else None
            for mutant in todo:
                trial.run(mutant)
                if args.again and mutant["outcome"] == "killed":
                    mutant["outcome"] = "killed since"
                keep(args.table, mutant)
                print(*(mutant[key] for key in FIELDS[1:-1]), sep=" | ", flush=True)
    args.table.with_suffix(".md").write_text(report(read(args.table)), encoding="utf-8")


def again(table: Path, command: str) -> None:
    """Run what survived once more, all at once, and what fails then with each alone."""
    survivors = [m for m in read(table) if m["outcome"] == "survived"]
    with tempfile.TemporaryDirectory() as scratch:
        copy = Together(Path(scratch))
        tests = copy.failed(command, survivors)
        print(f"{len(survivors)} survivors together fail {len(tests)} tests", flush=True)
        if not tests:
            return
        alone = " ".join([command, *map(shlex.quote, tests)])
        without = copy.failed(alone, [])
        for mutant in survivors:
            failed = [test for test in copy.failed(alone, [mutant]) if test not in without]
            if failed:
                mutant.update(outcome="killed since", by=failed[0])
                keep(table, mutant)


def draw(rooms: list[str], n: int, seed: int) -> list[Mutant]:
    """Return mutants, as many in each room, each at a place of its own, in order of the draw."""
    drawn: list[Mutant] = []
    for k, room in enumerate(rooms):
        rng = np.random.default_rng([seed, *room.encode()])
        found = [place for path in sorted((ROOT / place_of(room)).rglob("*.py"))
                 for place in places(path)]  # fmt: skip
        made = (change(*found[j], rng) for j in rng.permutation(len(found)))
        kept = islice(filter(None, made), n // len(rooms) + (k < n % len(rooms)))
        drawn += [{**dict.fromkeys(FIELDS, ""), "room": room, **mutant} for mutant in kept]
    return drawn


def places(path: Path) -> list[tuple[Path, list[tuple[str, int]]]]:
    """Return the places of a file that can be changed: each the operators that change it."""
    get_operator, operator_names, ast_nodes, get_ast, _ = cosmic_ray()
    source = path.read_text(encoding="utf-8")
    if "nextpert.core._compile" in source:
        return []
    spans, found, nodes = left_out(source), {}, list(ast_nodes(get_ast(source)))
    for name in filter(telling, operator_names()):
        operator = get_operator(name)()
        starts = [start for node in nodes for start, _ in operator.mutation_positions(node)]
        for occurrence, start in enumerate(starts):
            if not any(first <= start < last for first, last in spans):
                found.setdefault(start, []).append((name, occurrence))
    return [(path, found[start]) for start in sorted(found)]


def telling(name: str) -> bool:
    """Whether an operator makes faults that do not raise at once."""
    kind, *ends = name.removeprefix("core/").split("_")
    if kind == "ReplaceBinaryOperator":
        return any(ends[-1] in family and ends[0] in family | {"Pow", "FloorDiv", "Mod"}
                   for family in (ARITHMETIC, BITS))  # fmt: skip
    if kind == "ReplaceComparisonOperator":
        return ends[-1] not in ("Is", "IsNot") or ends[0] in ("Is", "IsNot")
    return kind not in ("NoOp", "RemoveDecorator", "VariableReplacer", "VariableInserter")


def left_out(source: str) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Return where signatures, decorators, annotations and what only types need begin and end."""
    spans = []
    for node in ast.walk(ast.parse(source)):
        begin = end = node
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            begin, end = [*node.decorator_list, node][0], node.body[0]  # a docstring, mostly
            if not isinstance(end, ast.Expr):
                spans.append(((begin.lineno, 0), (end.lineno, 0)))
                continue
        elif isinstance(node, ast.AnnAssign):
            begin, end = node.target, node.annotation
        elif not (isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"):
            continue
        spans.append(((begin.lineno, 0), (end.end_lineno, end.end_col_offset)))
    return spans


def change(path: Path, operators: list[tuple[str, int]], rng: np.random.Generator) -> Mutant | None:
    """Return one change at a place, as a line before and after, or None."""
    get_operator, *_, mutate_code = cosmic_ray()
    name, occurrence = operators[rng.integers(len(operators))]
    source = path.read_text(encoding="utf-8")
    mutated = mutate_code(source, get_operator(name)(), occurrence)
    try:
        if ast.dump(ast.parse(mutated)) == ast.dump(ast.parse(source)):
            return None
    except SyntaxError:
        return None
    old, new = source.split("\n"), mutated.split("\n")
    lines = [k for k, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]]
    if len(old) != len(new) or len(lines) != 1:
        return None
    return {"file": str(path.relative_to(ROOT / PACKAGE)), "line": str(lines[0] + 1),
            "operator": name.removeprefix("core/"), "before": old[lines[0]],
            "after": new[lines[0]]}  # fmt: skip


def cosmic_ray() -> tuple[Any, ...]:
    """Return what is needed of cosmic-ray."""
    try:
        import parso.python.tree  # noqa: F401  before cosmic-ray, whose own order is a circle
        from cosmic_ray.ast import ast_nodes, get_ast
        from cosmic_ray.mutating import mutate_code
        from cosmic_ray.plugins import get_operator, operator_names
    except ImportError as error:
        message = "Mutants are drawn by cosmic-ray, which is not installed: pip install cosmic-ray"
        raise ImportError(message) from error
    return get_operator, operator_names, ast_nodes, get_ast, mutate_code


def read(table: Path) -> list[Mutant]:
    """Return the mutants of a table."""
    with table.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(table: Path, mutants: list[Mutant]) -> None:
    """Write the mutants, all or none."""
    part = table.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        out = csv.DictWriter(file, FIELDS, lineterminator="\n")
        out.writeheader()
        out.writerows(mutants)
    part.replace(table)


def keep(table: Path, mutant: Mutant) -> None:
    """Write what became of a mutant; the table is read anew, for verdicts may be written by now."""
    rows = read(table)
    for row in rows:
        if all(row[key] == mutant[key] for key in FIELDS[:6]):
            row.update({key: mutant[key] for key in ("outcome", "by", "seconds")})
    write(table, rows)


def report(mutants: list[Mutant]) -> str:
    """Return the counts of every room, and what was not killed at once with its verdict."""
    text = ["# Mutants\n", "From `python -m benchmarks.mutants`; the verdicts are ours.\n",
            f"| room | drawn | run | {' | '.join(OUTCOMES)} |", "|---" * 7 + "|"]  # fmt: skip
    for room in [*dict.fromkeys(m["room"] for m in mutants), "all"]:
        counts = Counter(m["outcome"] for m in mutants if room in (m["room"], "all"))
        numbers = [counts.total(), counts.total() - counts[""], *(counts[o] for o in OUTCOMES)]
        text.append(f"| {room} | {' | '.join(map(str, numbers))} |")
    text += ["", "| file, line | was | mutant | outcome | verdict |", "|---|---|---|---|---|"]
    for m in mutants:
        if m["outcome"] in OUTCOMES[1:]:
            code = [f"`{m[key].strip()}`".replace("|", "\\|") for key in ("before", "after")]
            place = f"`{m['file']}`, {m['line']}"
            text.append(f"| {' | '.join([place, *code, m['outcome'], m['verdict'] or '-'])} |")
    return "\n".join(text) + "\n"


if __name__ == "__main__":
    main()
