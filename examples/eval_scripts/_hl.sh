# Sourced by the scripts beside it: set-up, then `cof_hl` with settings from the environment:
#   MME_ROOT, POPE_ROOT, MMBENCH_ROOT, VSTAR_ROOT   the real benchmark; without, its mini twin, made once
#   MODEL     a folder or a hub name; without, the embedded model
#   DIFFICULTY (easy, fine, crowded, noise), SIZE (images of each part)   of the mini benchmarks
#   WEIGHT, EXPAND, OUT, CONFIG   λ, α, folder of the runs, and the YAML file that all this changes
. "$(dirname "${BASH_SOURCE[0]}")/../../scripts/setup.sh" requirements.txt
cof_hl() {  # COMMAND BENCHMARK ROOT MINI [key=value ...]; without ROOT on the mini benchmark MINI
  local command="$1" bench="$2" root="$3" mini
  if [[ -z "$root" ]]; then
    mini="$COF_ROOT/runs/data/mini-${DIFFICULTY:-fine}${SIZE:+-$SIZE}"
    root="$mini/$4"
    [[ -e "$root" ]] || "$PYTHON" -m cof.cli data mini "$mini" --only "$4" \
      --difficulty "${DIFFICULTY:-fine}" --size "${SIZE:-60}"
  fi
  exec "$PYTHON" -m cof.cli "$command" "${CONFIG:-$COF_ROOT/examples/configs/mme_tiny.yaml}" \
    "bench.name=$bench" "bench.root=$root" "out=${OUT:-$COF_ROOT/runs}" \
    ${MODEL:+"model.path=$MODEL"} ${WEIGHT:+"refine.weight=$WEIGHT"} \
    ${EXPAND:+"boxes.expand=$EXPAND"} "${@:5}"
}
