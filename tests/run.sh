#!/usr/bin/env bash
# Set-up, lint, types and the whole suite; further arguments go to pytest.
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")/..")"
. "$here/examples/setup.sh" requirements.txt requirements-dev.txt
"$PYTHON" -m ruff check "$here"
"$PYTHON" -m ruff format --check "$here"
"$PYTHON" -m mypy --config-file "$here/pyproject.toml" --cache-dir "$here/.mypy_cache" "$here/cof"
"$PYTHON" -m pytest -c "$here/pyproject.toml" --rootdir "$here" "$here/tests" "$@"
