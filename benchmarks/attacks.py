"""Invalid inputs, drawn with a seed, and how the package responds to each.

Every case changes one input of a valid call: a table of effects, side information, columns or
values of a screen, an argument, a stored result, the cells behind a fit or behind a result that is
shown, cells that a campaign observes, or a file. ``clear``: an error or
a warning of the package that has the exact name of the input (the slot, column, gene, file or
argument), and nothing is changed. ``same``: the result is that
of the valid call, so the change has no effect. ``unclear``: an error of a dependency, or one that
does not name the input. ``silent``: a different result without a message. ``hang``: more than 20
seconds.

    python -m benchmarks.attacks                    # 2,750 cases, some minutes
    python -m benchmarks.attacks --n 150 --seed 3 --show
"""

from __future__ import annotations

import logging
import re
import signal
import traceback
import warnings
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata as ad
import numpy as np
import pandas as pd

import nextpert as npt
from benchmarks import _file_attacks as more
from benchmarks._page import options, save, show, table
from nextpert.core.model.sampler import Chain

if TYPE_CHECKING:
    from collections.abc import Callable

    Case = tuple[str, Callable[[], Any], tuple[str, ...], ad.AnnData | None]

SRC = Path(npt.__file__).parent
GENES = [f"G{k}" for k in range(8)]
NAMES = ["G0", "G1", "G2", "G0+G1"]
BLANK = (np.nan, None, "", " ", pd.NA)
NOT_FINITE = (np.nan, np.inf, -np.inf)
TARGET = {"G3": 1.0}
OUTCOMES = ("clear", "same", "unclear", "silent", "hang")


def cells(seed: int = 0) -> ad.AnnData:
    """Return a small screen with guides, batches and conditions."""
    rng = np.random.default_rng(seed)
    label = np.repeat(["control", *NAMES], [120, *[30] * len(NAMES)])
    x = 2.0 + 0.4 * rng.normal(size=(len(label), len(GENES)))
    for name in NAMES:
        x[label == name] += np.random.default_rng(len(name)).normal(size=len(GENES))
    obs = pd.DataFrame({"perturbation": label}, index=[f"c{i}" for i in range(len(label))])
    obs["guide"] = [f"{name}_{i % 3}" for i, name in enumerate(label)]
    obs["batch"] = rng.choice(["a", "b"], len(label))
    obs["line"] = rng.choice(["x", "y"], len(label))
    return ad.AnnData(x, obs, pd.DataFrame(index=GENES))


def fitted(**roles: str) -> ad.AnnData:
    """Return the screen with its fit and the results that follow."""
    adata = cells()
    npt.pp.setup_screen(adata, **roles)
    npt.tl.learn_dag(adata, method="given", dag=[("G0", "G3")], genes=GENES)
    npt.tl.fit_dag_blr(adata)
    npt.tl.perturbation_effects(adata)
    npt.tl.design_interventions(adata, TARGET, n_samples=20)
    npt.tl.plan_screen(adata, TARGET, n_perturbations=2, n_cells=200, strategy="exploit")
    return adata


def results(adata: ad.AnnData) -> list[np.ndarray]:
    """Return the plan and the effects, as text."""
    tables = adata.uns["plan"]["plate"], pd.DataFrame(adata.uns["perturbation_effects"]["mean"])
    return [each.to_numpy(str) for each in tables]


def effect_table(rng: np.random.Generator) -> Case:
    """Change an entry, a name or a number of a table of effects."""
    effects = pd.DataFrame(rng.normal(size=(3, 8)), NAMES[:3], GENES)
    se, told = effects * 0 + 0.1, {"n_cells": 50.0, "n_controls": 200.0}
    row, gene = NAMES[rng.integers(3)], GENES[rng.integers(8)]
    words: tuple[str, ...] = ()
    what = rng.choice(["se", "effect", "tiny", "name", "gene", "shape", "twice", "number", "text"])
    if what == "se":
        se.loc[row, gene] = rng.choice([-1.0, 0.0, -np.inf, -1e-9])
        words = (gene,)
    elif what == "effect":
        effects.loc[row, gene] = rng.choice([np.inf, -np.inf, 1e200])
        words = (gene,)
    elif what == "tiny":
        se.loc[row, gene] = 10.0 ** -rng.integers(101, 300)
        words = (gene,)
    elif what == "name":
        effects.index = se.index = [BLANK[rng.integers(5)] if n == row else n for n in NAMES[:3]]
        words = ("name", "left out")
    elif what == "gene":
        effects.columns = se.columns = [BLANK[rng.integers(5)] if n == gene else n for n in GENES]
        words = ("name", "gene")
    elif what == "shape":
        se = se.drop(columns=gene) if rng.random() < 0.5 else se.drop(index=row)
        words = (gene, row)
    elif what == "twice":
        effects.index = se.index = [NAMES[0], NAMES[0], NAMES[1]]
        words = (NAMES[0],)
    elif what == "number":
        name = ("n_cells", "n_controls")[rng.integers(2)]
        told[name] = rng.choice([0.0, -3.0, np.nan, np.inf])
        words = (name,)
    else:
        effects, words = effects.astype(object), (gene,)
        effects.loc[row, gene] = str(rng.choice(["high", "1,5", "-", "5%"]))

    def call() -> Any:
        made = npt.pp.effect_table(effects, se, **told)
        npt.tl.fit_dag_blr(made)
        return None

    return str(what), call, words, None


def features(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Change something of side information."""
    adata, frame = base.copy(), pd.DataFrame(rng.normal(size=(4, 3)), NAMES, list("abc"))
    what = rng.choice(["blank", "text", "dates", "infinite", "effects", "type", "gmt"])
    row, given, words = NAMES[rng.integers(4)], frame, ("features",)
    if what == "blank":
        given = frame.set_axis([BLANK[rng.integers(5)] if n == row else n for n in NAMES])
        words = ("name",)
    elif what == "text":
        given = frame.astype(object)
        given.loc[row, "b"] = str(rng.choice(["x", "1,000", "5%"]))
    elif what == "dates":
        given = frame.assign(d=pd.Timestamp("2026-01-01"))
    elif what == "infinite":
        frame.loc[row, "a"] = rng.choice([np.inf, -np.inf, 1e300])
    elif what == "effects":
        given = ad.AnnData(frame.to_numpy() * np.nan, pd.DataFrame(index=NAMES))
    elif what == "type":
        given = [3, [1.0], "nowhere.csv", {"a": 3}, np.eye(3)][rng.integers(5)]
        words = ("features", "nowhere.csv")
    else:
        given = {"set": [NAMES[0], None]}
        words = ("features", "set", "name")
    return str(what), partial(npt.tl.fit_dag_blr, adata, features=given), words, adata


def labels(rng: np.random.Generator) -> Case:
    """Change columns with a role before a fit."""
    adata = cells(int(rng.integers(100)))
    key = str(rng.choice(["perturbation", "guide", "batch", "line"]))
    roles = {"guide": "guide_key", "batch": "batch_key", "line": "condition_key"}
    what = rng.choice(["blank", "absent", "numbers", "one", "control", "values"])
    words: tuple[str, ...] = (key, "control")
    options = {roles[key]: key} if key in roles else {}
    if what == "blank":
        column = adata.obs[key].astype(object)
        column.iloc[rng.choice(len(column), 5, replace=False)] = BLANK[rng.integers(5)]
        adata.obs[key] = column
    elif what == "absent":
        del adata.obs[key]
        options = options or {"perturbation_key": key}
    elif what == "numbers":
        adata.obs[key] = rng.normal(size=adata.n_obs)
    elif what == "one":
        adata.obs["perturbation"] = NAMES[rng.integers(4)]
        words = ("control",)
    elif what == "control":
        options["control"] = str(rng.choice(["contrl", "NT", "G9"]))
    else:
        place = rng.integers(adata.n_obs), rng.integers(8)
        adata.X[place] = rng.choice([*NOT_FINITE, 1e200])
        words = (GENES[place[1]], "finite", "values", "X")

    def call() -> Any:
        npt.pp.setup_screen(adata, **options)
        npt.tl.learn_dag(adata, method="given", dag=[], genes=GENES)
        npt.tl.fit_dag_blr(adata)

    return f"{key}, {what}", call, words, None


BAD: dict[str, tuple[Any, ...]] = {
    "n_cells": (0, -1, 1.5, "ten", np.nan, 10**400, True, [3], None),
    "n_perturbations": (0, -2, 2.5, "all", np.inf, None),
    "rng": (-1, 1.5, "seed", [None]),
    "key_added": ("", "a/b", 3, None),
    "posterior_key": ("absent", 3, ""),
    "candidates": (3, [], ["NOPE"], {}, [None], {"G0": {"NOPE": 1.0}}, ["G0+G0"], ["control"]),
    "strategy": ("best", 3, "", None),
    "acquisition": ("best", 3, "", ["civ"]),
    "pending": (3, "G0", ["NOPE"], {"G0": 0}, {"G0": 1.5}, {"G0": np.nan}),
    "constraints": (3, {"minimum": 3}, {"min_cells": "few"}, {"include": ["NOPE"]}, {"exclude": 3}),
    "target": (3, None, {}, {"NOPE": 1.0}, {"G3": np.nan}, "NOPE", ("bach", "a"), [], np.ones(3)),
}
TAKES = {
    npt.tl.plan_screen: (
        "n_cells", "n_perturbations", "rng", "key_added", "posterior_key", "candidates", "strategy",
        "pending", "constraints", "target",
    ),
    npt.tl.design_interventions: (
        "n_cells", "rng", "key_added", "posterior_key", "candidates", "acquisition", "target",
    ),
    npt.tl.plan_cells: ("key_added", "posterior_key", "target", "candidates", "rng"),
}  # fmt: skip


def argument(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Give an argument what it cannot be; sometimes two at once."""
    adata = base.copy()
    function: Any = list(TAKES)[rng.integers(len(TAKES))]
    names = rng.choice(TAKES[function], size=rng.integers(1, 3), replace=False)
    given = {str(name): BAD[name][rng.integers(len(BAD[name]))] for name in names}
    target = given.pop("target", TARGET)
    if function is npt.tl.plan_cells and target is None:  # which is its default
        target = "NOPE"
    words = (*map(str, names), *(v for v in given.values() if isinstance(v, str)), "NOPE")
    said = f"{function.__name__}({', '.join(f'{k}={v!r}'[:40] for k, v in given.items())})"
    return said, partial(function, adata, target, **given), words, adata


def stored(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Damage an entry of a stored result, and go on."""
    adata = base.copy()
    path, at = [str(rng.choice(["dag_blr", "dag", "plan", "design", "screen"]))], adata.uns
    at = at[path[0]]
    while isinstance(at, dict) and (len(path) < 2 or rng.random() < 0.7) and at:
        parent, name = at, str(rng.choice(sorted(at)))
        path.append(name)
        at = at[name]
    what = rng.choice(["gone", "other", "short", "nan"])
    value = parent[path[-1]]
    if what == "gone":
        del parent[path[-1]]
    elif what == "other":
        parent[path[-1]] = ["damaged", np.arange(3), {"a": 1}, -7][rng.integers(4)]
    elif what == "short" and hasattr(value, "shape") and value.shape and value.shape[0] > 1:
        parent[path[-1]] = value.iloc[:-1] if hasattr(value, "iloc") else value[:-1]
    elif isinstance(value, np.ndarray) and value.dtype.kind == "f":
        parent[path[-1]] = np.full_like(value, np.nan)
    else:
        parent[path[-1]] = float("nan")

    def call() -> Any:
        npt.tl.plan_screen(adata, TARGET, n_perturbations=2, n_cells=200)
        npt.tl.perturbation_effects(adata)
        return results(adata)

    return f"{'/'.join(path)} {what}", call, (f"uns[{path[0]!r}]",), None


def changed(rng: np.random.Generator, base: ad.AnnData) -> Case:
    """Change the cells behind a fit, and go on."""
    adata = base.copy()
    what = str(rng.choice(["perturbation", "guide", "batch", "values", "cells", "roles"]))
    if what == "values":
        adata.X[rng.integers(adata.n_obs), rng.integers(8)] += 10.0 ** rng.integers(-3, 3)
    elif what == "cells":
        adata = adata[rng.permutation(adata.n_obs)[: adata.n_obs - rng.integers(1, 50)]].copy()
    elif what == "roles":
        npt.pp.setup_screen(adata, guide_key="guide", batch_key=None)
    else:
        column = adata.obs[what].to_numpy(object).copy()
        some = rng.choice(adata.n_obs, int(rng.integers(5, 60)), replace=False)
        column[some] = rng.permutation(column)[: len(some)]
        if (column == adata.obs[what].to_numpy(object)).all():
            column[0] = "G1" if what == "perturbation" else "new"
        adata.obs[what] = column
    words = ({"values": "adata.X", "cells": "names", "roles": "batch_key"}.get(what, what),)
    return what, partial(npt.tl.plan_screen, adata, TARGET, n_cells=200), words, None


def says(text: str, words: tuple[str, ...]) -> bool:
    """Whether a message has the exact name of the thing that was changed, as a whole word."""
    return any(word and re.search(rf"(?<!\w){re.escape(word)}(?!\w)", text) for word in words)


def outcome(case: Case, sound: list[Any]) -> tuple[str, str]:
    """Run a case; return what came of it, and the message."""
    _, call, words, adata = case
    before = None if adata is None else sorted(adata.uns)
    heard: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: heard.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("nextpert").addHandler(handler)

    def late(*_: Any) -> None:
        raise TimeoutError

    signal.signal(signal.SIGALRM, late)
    signal.alarm(20)
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found = call()
        heard += [str(each.message) for each in caught if issubclass(each.category, UserWarning)]
        if found is not None and all(map(np.array_equal, found, sound)):
            return "same", ""
        told = [text for text in heard if says(text, words)]
        return ("clear", told[0]) if told else ("silent", " ".join(heard))
    except TimeoutError:
        return "hang", ""
    except Exception as error:
        place = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        text, kinds = str(error), (ValueError, TypeError, FileNotFoundError)
        kept = adata is None or sorted(adata.uns) == before
        clear = type(error) in kinds and place.is_relative_to(SRC) and says(text, words) and kept
        return ("clear" if clear else "unclear"), f"{type(error).__name__}: {text}"
    finally:
        signal.alarm(0)
        logging.getLogger("nextpert").removeHandler(handler)


def main(arguments: list[str] | None = None) -> None:
    """Run the cases and print the table."""
    parser = options("attacks", __doc__)
    parser.add_argument("--n", type=int, default=2750)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument(
        "--kind", nargs="+", default=[""], help="only kinds with one of these words"
    )
    parser.add_argument("--show", action="store_true", help="print what is not clear")
    args = parser.parse_args(arguments)
    Chain.of_size = classmethod(lambda cls, size: cls(10, 10, 1))  # effects are compared with none
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        base = fitted(guide_key="guide", batch_key="batch")
        again = base.copy()
        screen = more.logged_counts()
        npt.pp.setup_screen(screen, guide_key="guide", batch_key="batch")
        learn = {"method": "given", "dag": [["G0", "G3"]], "genes": GENES}
        campaign, file = (
            npt.Campaign(screen, {"G3": 4.0}, learn=learn),
            more.FOLDER / "campaign.h5ad",
        )
        campaign.save(file)
    kinds = {
        "tables of effects": effect_table,
        "side information": lambda rng: features(rng, base),
        "columns and values": labels,
        "arguments": lambda rng: argument(rng, base),
        "stored results": lambda rng: stored(rng, base),
        "cells after a fit": lambda rng: changed(rng, base),
        "results shown after a change": lambda rng: more.shown(rng, base),
        "damaged results that are shown": lambda rng: more.damaged(rng, base),
        "cells that a campaign observes": lambda rng: more.observed(rng, campaign),
        "files of campaigns": lambda rng: more.campaign_file(rng, file),
        "data and files that are loaded": lambda rng: more.loaded(rng, base),
    }
    kinds = {kind: draw for kind, draw in kinds.items() if any(x in kind for x in args.kind)}
    npt.tl.plan_screen(again, TARGET, n_perturbations=2, n_cells=200)
    npt.tl.perturbation_effects(again)
    wanted = results(again)
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in kinds}
    for i in range(args.n):
        kind = list(kinds)[i % len(kinds)]
        rng = np.random.default_rng([args.seed, i])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            case = kinds[kind](rng)
        found, text = outcome(case, [np.array(1)] if kind.startswith("damaged") else wanted)
        counts[kind][found] += 1
        if args.show and found not in ("clear", "same"):
            print(f"{found}: {kind} | {case[0]} | {' '.join(text.split())[:160]}", flush=True)
    rows = {kind: [count[name] for name in OUTCOMES] for kind, count in counts.items()}
    save("attacks", [show(table(("kind of case", *OUTCOMES), rows))], args.save)


if __name__ == "__main__":
    main()
