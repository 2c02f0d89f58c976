#!/usr/bin/env bash
# Build the documentation as a site, every link checked: bash scripts/site.sh [OUT]
set -euo pipefail
here="$(realpath "$(dirname "${BASH_SOURCE[0]}")")"
. "$here/setup.sh" requirements.txt docs/requirements.txt
"$PYTHON" "$here/build_site.py" "${1:-site}"
