"""``datasets.perturb_cite_seq`` in a process of its own: killed half way, and its memory."""

import gzip
import os
import subprocess
import sys

import numpy as np
import pytest

from nextpert.datasets import perturb_cite_seq

pytestmark = pytest.mark.processes

SLOW = """
import os, sys, time
from nextpert.datasets._scp1064 import rows
from nextpert.datasets import perturb_cite_seq
write = rows.write_rows
def slowly(*args, **options):
    write(*args, **options)
    print("written", flush=True)
    time.sleep(60)
rows.write_rows = slowly
perturb_cite_seq(sys.argv[1], backed=sys.argv[2])
"""


def test_a_killed_reader_leaves_nothing_in_the_way(portal, tmp_path):
    target = tmp_path / "out.h5ad"
    command = [sys.executable, "-c", SLOW, str(portal[0]), str(target)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "written\n"
        assert not target.exists()
        assert any(tmp_path.iterdir())
        process.kill()
    assert not target.exists()
    again = perturb_cite_seq(portal[0], backed=target)
    assert again.shape == (90, 30)
    again.file.close()
    assert [path.name for path in tmp_path.iterdir() if path.name[0] != "."] == ["out.h5ad"]


MEASURE = """
import gc, sys
from nextpert.datasets import perturb_cite_seq
from nextpert.datasets._scp1064 import rows
from pathlib import Path
def status(field):
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024
# Smaller buffers than the default ones: what is left grows with the table, if anything does.
rows._BLOCK, rows._GROUP = 1 << 17, 256
warm = {"counts": True, "protein": False, "backed": sys.argv[3]}
perturb_cite_seq(sys.argv[1], **warm).file.close()
for backed in (sys.argv[3], None):
    gc.collect()
    before = status("VmRSS:")
    Path("/proc/self/clear_refs").write_text("5")
    options = {"counts": backed is None, "backed": backed}
    adata = perturb_cite_seq(sys.argv[2], protein=False, **options)
    print(status("VmHWM:") - before, adata.n_obs)
    del adata
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="needs Linux's /proc")
def test_memory_is_the_result_and_a_buffer(portal, tmp_path):
    # 6 million fields, a fifth of them not zero.
    rng = np.random.default_rng(0)
    n_cells, n_genes = 5000, 1200
    folder = tmp_path / "large"
    cells = [f"CELL_{i + 1}" for i in range(n_cells)]
    counts = (rng.random((n_genes, n_cells)) < 0.22).astype(np.int8)
    total = counts.sum(axis=0)
    texts = [f"{np.log1p(1e6 / n):.7g}" for n in total]
    folder.mkdir()
    with gzip.open(folder / "RNA_expression.csv.gz", "wt", compresslevel=1) as file:
        file.write(",".join(["GENE", *cells]) + "\n")
        for g in range(n_genes):
            row = [t if c else "0" for t, c in zip(texts, counts[g].tolist(), strict=True)]
            file.write(f"G{g}," + ",".join(row) + "\n")
    header = "NAME,library_preparation_protocol,condition,MOI,sgRNA,UMI_count"
    rows = [f"{c},10x,Control,0,,{n}" for c, n in zip(cells, total, strict=True)]
    (folder / "RNA_metadata.csv").write_text("\n".join([header, *rows]))
    guides = ["Cell,sgRNAs", *(f"{c}," for c in cells)]
    (folder / "all_sgRNA_assignments.txt").write_text("\n".join(guides))
    result = counts.sum() * 16 / 2**20  # two CSR of 4 + 4 bytes an entry
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, str(portal[0]), str(folder), str(tmp_path / "o.h5ad")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    backed, in_memory = (float(line.split()[0]) for line in done.stdout.splitlines())
    assert backed < 20  # buffers of this test, whatever the table
    assert in_memory < 1.25 * result + 10  # one of four arrays is there twice as it is read
