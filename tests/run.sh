#!/usr/bin/env bash
# Set-up, lint, types and the whole suite, in two processes; further arguments go to pytest.
# With --fast first: without the tests marked `slow`.
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")"
. "$here/scripts/setup.sh" requirements.txt requirements-dev.txt docs/requirements.txt
export OMP_NUM_THREADS="${OMP_NUM_THREADS:-1}"
chosen=()
if [[ "${1:-}" == --fast ]]; then chosen=(-m "not slow"); shift; fi
"$PYTHON" -m ruff check "$here"
"$PYTHON" -m ruff format --check "$here"
"$PYTHON" -m mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" \
  "$here/cof" "$here/cof_lab" "$here/cof_speed"
"$PYTHON" -m pytest -c "$here/pyproject.toml" --rootdir "$here" -n 2 --dist loadfile \
  "${chosen[@]}" "$here/tests" "$@"
