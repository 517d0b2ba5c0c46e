#!/usr/bin/env bash
# Submit a screen as a chain of jobs, each of which starts once the previous one has succeeded.
# The screen needs raw counts, a column "perturbation" and controls "control" (otherwise see
# `nextpert preprocess --help`, and add options below).
#
#     ./submit.sh screen.h5ad MYC
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: $0 SCREEN TARGET" >&2; exit 2; }
screen=$1
target=$2
here=$(cd "$(dirname "$0")" && pwd)
stem=${screen%.*}

# after_ok AFTER CPUS MEMORY TIME STEP ARGUMENTS...: submit a step, and print the job's number.
# If submitted again, a step replaces its earlier files.
after_ok() {
  local after=$1 cpus=$2 memory=$3 time=$4
  shift 4
  sbatch --parsable --job-name="nextpert-$1" --cpus-per-task="$cpus" --mem="$memory" \
    --time="$time" ${after:+--dependency="afterok:$after"} --kill-on-invalid-dep=yes \
    "$here/step.sbatch" "$@" --overwrite
}

# Cores, memory and time for 10,000 perturbations x 1,000 genes: docs/guides/many_machines.md.
job=$(after_ok "" 1 16G 0:30:00 preprocess "$screen" --out "$stem.cells.h5ad")
job=$(after_ok "$job" 16 16G 4:00:00 learn "$stem.cells.h5ad" --out "$stem.graph.h5ad" \
  --method boss --environments all --n-graphs 25 --n-jobs 16)
job=$(after_ok "$job" 1 16G 1:00:00 fit "$stem.graph.h5ad" --out "$stem.fit.h5ad")
# The last two need only the fit, and run in parallel.
effects=$(after_ok "$job" 1 16G 0:30:00 effects "$stem.fit.h5ad" \
  --out "$stem.effects.h5ad" --table "$stem.effects.csv")
plan=$(after_ok "$job" 1 16G 1:00:00 plan "$stem.fit.h5ad" --target "$target" \
  --out "$stem.plan.h5ad" --table "$stem.plate.csv")
echo "effects: job $effects, plate: job $plan"
