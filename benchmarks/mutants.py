"""Mutation tests: small faults inserted into the sources one at a time, and whether tests fail.

A mutant is one line changed by an operator of cosmic-ray (MIT): another sign, another comparison, a
number changed by one. Mutants are drawn at random, equally many in each subpackage (of the core, or
tl, _adata, pp), at most one per place. Left out: files compiled by numba, signatures, annotations,
docstrings, and changes that would only raise (a shift of bits for a sum). A mutant is written into
a copy of the sources, and the tests of its subpackage run, those of its file first, up to the first
failure. Their time limit is five times their time without a mutant, plus 60 seconds. The table has
the mutants that survived; some are equivalent to the source.

    pip install cosmic-ray
    python -m benchmarks.mutants --rooms model design --n 60 --seed 0   # about an hour
"""

from __future__ import annotations

import ast
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._page import ROOT, options, save, show, table

PACKAGE, MEMORY = Path("src/nextpert"), 8 * 2**30  # bytes of addresses of a run of tests
ARITHMETIC, BITS = {"Add", "Sub", "Mul", "Div"}, {"BitOr", "BitAnd", "BitXor"}
Mutant = dict[str, str]


def main(arguments: list[str] | None = None) -> None:
    """Draw the mutants, run the tests of their rooms, and print what survived."""
    parser = options("mutants", __doc__)
    parser.add_argument("--rooms", nargs="+", default=["model", "design"])
    parser.add_argument("--n", type=int, default=60, help="mutants, over all rooms")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args(arguments)
    counts, survivors = {}, []
    with tempfile.TemporaryDirectory() as scratch:
        for room in args.rooms:
            drawn, outcomes = draw([room], args.n // len(args.rooms), args.seed), Counter()
            folder = copied(Path(scratch) / room)
            start = time.perf_counter()
            if tested(folder, room, place_of(room), None) != "survived":
                raise RuntimeError(f"The tests of {room} fail without a mutant: repair them first.")
            seconds = 60 + 5 * (time.perf_counter() - start)
            for mutant in drawn:
                outcome = with_mutant(folder, room, mutant, seconds)
                outcomes[outcome] += 1
                print(*mutant.values(), outcome, sep=" | ", flush=True)
                if outcome == "survived":
                    code = [f"`{mutant[key].strip()}`" for key in ("before", "after")]
                    cells = [f"`{mutant['file']}`", mutant["line"], *code]
                    survivors.append([cell.replace("|", "\\|") for cell in cells])
            counts[room] = [len(drawn), *(outcomes[k] for k in ("killed", "timed out", "survived"))]
    parts = [
        table(("room", "run", "killed", "timed out", "survived"), counts),
        table(("file", "line", "was", "mutant that survived"), survivors),
    ]
    save("mutants", map(show, parts), args.save)


def copied(folder: Path) -> Path:
    """Return a copy of the sources and tests, with times: what is compiled stays valid."""
    for part in ("src", "tests", "benchmarks"):
        shutil.copytree(ROOT / part, folder / part)
    for name in ("pyproject.toml", "conftest.py"):
        shutil.copy(ROOT / name, folder)
    return folder


def with_mutant(folder: Path, room: str, mutant: Mutant, seconds: float) -> str:
    """Put a mutant in, run the tests, take it out; return what became of it."""
    path = PACKAGE / mutant["file"]
    source = (folder / path).read_text(encoding="utf-8")
    lines = source.split("\n")
    lines[int(mutant["line"]) - 1] = mutant["after"]
    try:
        (folder / path).write_text("\n".join(lines), encoding="utf-8")
        return tested(folder, room, path, seconds)
    finally:
        (folder / path).write_text(source, encoding="utf-8")


def tested(folder: Path, room: str, path: Path, seconds: float | None) -> str:
    """Return the outcome of the tests of a subpackage, and of the doctests of a path."""
    tests = Path("tests") / place_of(room).relative_to(PACKAGE)
    first = sorted((folder / tests).rglob(f"test_*{path.stem.strip('_')}*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    here = os.pathsep.join([str(folder / "src"), str(folder)])
    # A mutant as old and long as its source would be taken for it: nothing is compiled to disk.
    environment = {**os.environ, "PYTHONPATH": here, "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(
            [*command, *map(str, first), str(path), str(tests)], cwd=folder, env=environment,
            capture_output=True, check=False, timeout=seconds,
            preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY)),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return "timed out"
    return "killed" if done.returncode else "survived"


def place_of(room: str) -> Path:
    """Return the folder of a room: of the core, or beside it."""
    return next(p for p in (PACKAGE / "core" / room, PACKAGE / room) if (ROOT / p).is_dir())


def draw(rooms: list[str], n: int, seed: int) -> list[Mutant]:
    """Return mutants, as many in each room, each at a place of its own, in order of the draw."""
    drawn: list[Mutant] = []
    for k, room in enumerate(rooms):
        rng = np.random.default_rng([seed, *room.encode()])
        found = [place for path in sorted((ROOT / place_of(room)).rglob("*.py"))
                 for place in places(path)]  # fmt: skip
        drawn_places = (found[j] for j in rng.permutation(len(found)))
        made = (change(path, operators, rng) for path, operators in drawn_places)
        kept = islice(filter(None, made), n // len(rooms) + (k < n % len(rooms)))
        drawn += [{"room": room, **mutant} for mutant in kept]
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
        begin: Any = node
        end: Any = node
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


if __name__ == "__main__":
    main()
