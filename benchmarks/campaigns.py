"""Campaigns survive what happens to files: kills, cuts, garbled bytes, and several at once.

A campaign of a simulated screen (8 genes, a hidden knockout as the state to reach) proposes,
notes a failure, observes, and proposes again; it is saved after every step. Its process is ended
without a word before a change to a file, at points spread over all of them; the next process takes
up the file and goes on. What it ends with is compared with a campaign that nobody disturbed.

    python -m benchmarks.campaigns               # 24 kills, 50 cuts: some minutes
    python -m benchmarks.campaigns --points 4    # a quick look
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

import nextpert as npt
from benchmarks._quiet import quiet

if TYPE_CHECKING:
    from collections.abc import Callable

    import anndata as ad

    Found = dict[str, Any]

CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir"}
HIDDEN = "CDK4"
KILLED = 9


@quiet()
def main(arguments: list[str] | None = None) -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        "python -m benchmarks.campaigns", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("--points", type=int, default=24, help="kills of either kind of file")
    parser.add_argument("--files", nargs="+", default=["h5ad", "zarr"])
    parser.add_argument("--cuts", type=int, default=50)
    parser.add_argument("--writers", type=int, default=4)
    args = parser.parse_args(arguments)
    start, later = cells()
    print("| what | file | tried | as it should be |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), start, later)
        for ending in args.files:
            for what, n, good in (
                ("killed, then the same plan", *lab.killed(ending, args.points)),
                ("cut, refused with a message", *lab.cut(ending, args.cuts)),
                ("64 bytes garbled, refused or the same", *lab.garbled(ending, args.cuts)),
                ("written by several at once, nothing lost", *lab.together(ending, args.writers)),
            ):
                print(f"| {what} | {ending} | {n} | {good} |", flush=True)


def cells() -> tuple[npt.Campaign, ad.AnnData]:
    """Return a campaign towards the state of a hidden knockout, and the cells of that."""
    adata = npt.datasets.simulated_screen(
        n_genes=8, n_control=600, n_perturbed=40, perturbed=["CDK4", "B2M", "CD59", "CD58"],
        expected_degree=2, rng=1,
    )  # fmt: skip
    later = (adata.obs["perturbation"] == HIDDEN).to_numpy()
    target = dict(zip(adata.var_names, adata[later].X.mean(axis=0).tolist(), strict=True))
    graph = {"method": "given", "dag": adata.uns["truth"]["weights"].T}
    plan = {"candidates": "genes"}
    return npt.Campaign(adata[~later].copy(), target, learn=graph, plan=plan), adata[later].copy()


class Lab:
    """Runs every trial in a process of its own; this one never opens a file of a campaign."""

    def __init__(self, folder: Path, start: npt.Campaign, later: ad.AnnData) -> None:
        self.root, self.start, self.later = folder, start, later

    def work(self, path: Path, saved: Callable[[], object] = lambda: None) -> Found:
        """Do what is left to do, by what the file says; return the plan and what was noted."""
        campaign = self.start
        if path.exists() or path.with_name(f".{path.stem}.before{path.suffix}").exists():
            campaign = npt.Campaign.load(path)
        else:
            campaign.save(path)
            saved()
        steps: list[Callable[[], object]] = [
            lambda: campaign.propose(2, 200),
            lambda: campaign.mark_failed(["CD58"], reason="no cells"),
            lambda: campaign.observe(self.later, batch="same"),
            lambda: campaign.propose(2, 200),
        ]
        happened = campaign.history[["round", "action"]].drop_duplicates()
        for step in steps[len(happened) - 1 :]:
            step()
            campaign.save(path)
            saved()
        return {
            "plate": campaign.adata.uns["plan"]["plate"].to_csv(),
            "history": campaign.history.drop(columns="when").to_csv(),
            "files": sorted(each.name for each in path.parent.iterdir()),
        }

    def killed(self, ending: str, points: int) -> tuple[int, int]:
        """Return the number of kills, and after how many the same plan came out.

        A trial starts from the file as it was after the last save before the kill.
        """
        path = self.fresh(ending)

        def kept(n_saves: int) -> Path:
            return self.root / f"{ending} after {n_saves}"

        def followed() -> Found:
            changes, marks = Changes(path.parent), [0]

            def keep() -> None:
                shutil.copytree(path.parent, kept(len(marks)))
                marks.append(changes.count)

            return {**self.work(path, keep), "marks": marks}

        whole = self.ask(followed)
        marks = whole.pop("marks")
        n_killed = n_good = 0
        for last in np.unique(np.linspace(1, marks[-1], points).astype(int)).tolist():
            n_saves = int(np.searchsorted(marks, last)) - 1
            trial = self.fresh(ending)
            if n_saves:
                shutil.copytree(kept(n_saves), trial.parent, dirs_exist_ok=True)
            at = last - marks[n_saves]
            n_killed += self.ask(lambda: (Changes(trial.parent, at), self.work(trial))) is None  # noqa: B023
            n_good += self.ask(lambda: self.work(trial)) == whole  # noqa: B023
        return n_killed, n_good

    def cut(self, ending: str, cuts: int) -> tuple[int, int]:
        """Return the number of cuts, and how many were refused: of a zarr, files of it."""

        def tried() -> list[str]:
            path, said = self.saved(ending), []
            for file, share in _places(path, cuts):
                content = file.read_bytes()
                file.write_bytes(content[: int(share * len(content))])
                said.append(_refusal(path))
                file.write_bytes(content)
            assert _refusal(path) == ""
            return said

        said = self.ask(tried)
        return len(said), sum(_is_a_word(text) for text in said)

    def garbled(self, ending: str, places: int) -> tuple[int, int]:
        """Return the number of places garbled, and how many were refused or held the same."""

        def tried() -> list[bool]:
            path, good = self.saved(ending), []
            whole = npt.Campaign.load(path)
            for file, share in _places(path, places):
                content = file.read_bytes()
                bad = np.frombuffer(content, np.uint8).copy()
                start = int(share * max(len(bad) - 64, 0))
                bad[start : start + 64] ^= 0x5A
                file.write_bytes(bad.tobytes())
                said = _refusal(path)
                good.append(_is_a_word(said) if said else _same(npt.Campaign.load(path), whole))
                file.write_bytes(content)
            return good

        good = self.ask(tried)
        return len(good), sum(good)

    def together(self, ending: str, writers: int) -> tuple[int, int]:
        """Return the number of processes that saved at once, and of how many the work is there."""
        names = [gene for gene in self.start.adata.var_names if gene != HIDDEN][:writers]
        path = self.fresh(ending)
        self.ask(lambda: self.start.save(path))

        def write(name: str) -> None:
            while True:
                mine = npt.Campaign.load(path)
                mine.mark_failed([name])
                try:
                    mine.save(path)
                except ValueError as error:
                    if "Load it again" not in str(error):
                        raise
                else:
                    return

        children = [_child(lambda name=name: write(name), None) for name in names]
        for child in children:
            os.waitpid(child, 0)
        failed = self.ask(lambda: list(npt.Campaign.load(path).failed))
        return len(names), len(set(names) & set(failed))

    def fresh(self, ending: str) -> Path:
        """Return a path in a new folder."""
        folder = self.root / str(len(list(self.root.iterdir())))
        folder.mkdir()
        return folder / f"a.{ending}"

    def saved(self, ending: str) -> Path:
        """Return the path of the campaign at its start."""
        path = self.fresh(ending)
        self.start.save(path)
        return path

    def ask(self, work: Callable[[], Any]) -> Any:
        """Return what a process of its own returns, ``None`` where it was ended."""
        answer = self.root.parent / f"{self.root.name}.answer"
        code = os.waitstatus_to_exitcode(os.waitpid(_child(work, answer), 0)[1])
        if code == KILLED:
            return None
        assert code == 0, f"a trial failed with exit code {code}"
        return pickle.loads(answer.read_bytes())


class Changes:
    """Counts changes to files in a folder, and ends the process before one of them."""

    def __init__(self, folder: Path, last: int = -1) -> None:
        self.folder, self.last, self.count = os.fspath(folder), last, 0
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        """Look at one event of the interpreter."""
        writes = event in CHANGES or (event == "open" and args[1] not in ("r", "rb", None))
        if writes and str(args[0]).startswith(self.folder):
            self.count += 1
            if self.count == self.last:
                os._exit(KILLED)


def _child(work: Callable[[], Any], answer: Path | None) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        found = work()
        if answer is not None:
            answer.write_bytes(pickle.dumps(found))
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _places(path: Path, n: int) -> list[tuple[Path, float]]:
    """Return files of a campaign, and where in them."""
    if path.is_file():
        return [(path, share) for share in np.linspace(0, 0.9999, n)]
    # Consolidated metadata repeat what stands elsewhere, and are not read.
    files = [p for p in sorted(path.rglob("*")) if p.is_file() and p.name != ".zmetadata"]
    every = np.linspace(0, len(files) - 1, n).astype(int)
    return [(files[i], 0.5) for i in every]


def _refusal(path: Path) -> str:
    try:
        npt.Campaign.load(path)
    except ValueError as error:
        return str(error)
    return ""


def _is_a_word(said: str) -> bool:
    return "is damaged" in said or "holds no campaign" in said or "another version" in said


def _same(one: npt.Campaign, two: npt.Campaign) -> bool:
    return one.history.equals(two.history) and bool((one.adata.X == two.adata.X).all())


if __name__ == "__main__":
    main()
