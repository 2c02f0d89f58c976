#!/usr/bin/env bash
# The runs behind docs/experiments.md, on the mini benchmarks: [MODEL= SIZE= OUT= RESULTS=] evidence.sh
# From the repository's root, with `cof` on the PATH. Stops and goes on at any point. Ends with
# RESULTS/, packed runs with their tables; for real benchmarks see the other scripts.
set -euo pipefail
out="${OUT:-runs/evidence}" r="${RESULTS:-examples/results}" size="${SIZE:-30}"
config=examples/configs/evidence.yaml
set -- "out=$out" "cache=$out/replies.sqlite" ${MODEL:+"model.path=$MODEL"}
for kind in fine noise; do
  data="$out/data/$kind-$size"
  [[ -e "$data/sha256.json" ]] || { rm -rf "$data"    # this file is written last
    cof data mini "$data" --difficulty "$kind" --size "$size"; }
  cof controls "$config" "bench.root=$data/MiniMME" "name=mme-$kind" "$@"
done
data="$out/data/fine-$size"
cof sweep "$config" "bench.root=$data/MiniMME" name=mme-fine-grid weight=1,1.3,2,3,4.5,8 expand=1,1.5,2 "$@"
cof sweep "$config" "bench.root=$data/MiniMME" name=mme-fine-text weight=1.3,2,3,4.5,8 scope=text "$@"
for pair in pope=MiniPOPE mmbench=MiniMMBench vstar=MiniVStar; do
  cof sweep "$config" "bench.name=${pair%=*}" "bench.root=$data/${pair#*=}" "name=${pair%=*}" \
    locate=prompt,oracle "$@"
done
cof eval examples/configs/grounding.yaml "bench.root=$data/grounding" name=prompt "out=$out/grounding" "${@:2}"
for folder in mme-fine mme-noise mme-fine-grid mme-fine-text pope mmbench vstar grounding; do
  cof pack "$out/$folder"/*/ --out "$r/$folder"
done
RESULTS="$r" bash examples/results/tables.sh
