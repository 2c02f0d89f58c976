#!/usr/bin/env bash
# The runs behind docs/experiments.md, on the mini benchmarks: [MODEL= SIZE= GRID= OUT= RESULTS=] evidence.sh
# From any folder. Stops and goes on at any point. Ends with RESULTS/, packed runs with their tables;
# for real benchmarks see the other scripts.
set -euo pipefail
[[ -z "${OUT:-}" ]] || OUT="$(realpath -ms "$OUT")"    # the caller's paths
[[ -z "${RESULTS:-}" ]] || RESULTS="$(realpath -ms "$RESULTS")"
[[ ! -e "${MODEL:-}" ]] || MODEL="$(realpath -s "$MODEL")"
[[ ! -e "${COF_PYTHON:-}" ]] || COF_PYTHON="$(realpath -s "$COF_PYTHON")"
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup.sh" requirements.txt
cd "$COF_ROOT"    # so that the other paths, which configs keep, name no folder of this machine
cof() { "$PYTHON" -m cof.cli "$@"; }
out="${OUT:-runs/evidence}" r="${RESULTS:-results}" size="${SIZE:-30}" grid="${GRID:-15}"
config=examples/configs/evidence.yaml
set -- "out=$out" "cache=$out/replies.sqlite" ${MODEL:+"model.path=$MODEL"}
cof data mini "$out/data/fine-$size" --difficulty fine --size "$size"
cof data mini "$out/data/noise-$size" --difficulty noise --size "$size" --only MiniMME
cof data mini "$out/data/fine-$grid" --difficulty fine --size "$grid" --only MiniMME
for kind in fine noise; do
  cof controls "$config" "bench.root=$out/data/$kind-$size/MiniMME" "name=mme-$kind" "$@"
done
small="bench.root=$out/data/fine-$grid/MiniMME"
cof sweep "$config" "$small" name=mme-fine-grid weight=1,1.3,2,3,4.5,8 expand=1,1.5,2 "$@"
cof sweep "$config" "$small" name=mme-fine-text weight=1.3,2,3,4.5,8 scope=text "$@"
data="$out/data/fine-$size"
while read -r bench mini limit; do    # limit: images, with all their questions
  cof sweep "$config" "bench.name=$bench" "bench.root=$data/$mini" "bench.limit_first=$limit" "name=$bench" \
    locate=prompt,oracle "$@"
done <<< $'pope MiniPOPE 20\nmmbench MiniMMBench 80\nvstar MiniVStar null'
cof eval examples/configs/grounding.yaml "bench.root=$data/grounding" name=prompt "out=$out/grounding" "${@:2}"
for folder in mme-fine mme-noise mme-fine-grid mme-fine-text pope mmbench vstar grounding; do
  cof pack "$out/$folder"/*/ --out "$r/$folder/runs.zip"
done
RESULTS="$r" bash results/tables.sh
