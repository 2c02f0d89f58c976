#!/usr/bin/env bash
# Every table and figure of this folder again, from the records in its archives: [RESULTS=] tables.sh
# From any folder; a test holds the tables to the byte.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/../scripts/setup.sh" requirements.txt
r="${RESULTS:-$COF_ROOT/results}" u="$(mktemp -d)"    # u: the archives, unpacked
trap 'rm -rf "$u"' EXIT
for file in "$r"/*/runs.zip; do "$PYTHON" -m zipfile -e "$file" "$u/$(basename "$(dirname "$file")")"; done
cof() { "$PYTHON" -m cof.cli "$@"; }
for name in mme-fine mme-noise; do
  cof report "$u/$name"/{own,oracle,whole,random,shuffled,centre} --out "$r/$name" --brief --gallery 0
  cof report "$u/$name/own" --out "$r/$name/own-alone" --gallery 0
done
cof report "$u"/mme-fine-grid/weight={1,1.3,2,3,4.5,8},expand={1,1.5,2} \
  --out "$r/mme-fine-grid" --brief --gallery 0
cof report "$u"/mme-fine-grid/weight={4.5,1.3,2,3,8},expand=1 "$u"/mme-fine-text/weight={4.5,1.3,2,3,8} \
  --out "$r/mme-fine-text" --brief --gallery 0
for name in pope mmbench vstar; do
  cof report "$u/$name"/locate={prompt,oracle} --out "$r/$name" --gallery 0
done
cof report "$u/grounding/prompt" --out "$r/grounding" --gallery 0
[[ -e "$r/mme-main" ]] || exit 0    # the rest is not made by evidence.sh
cof report "$u"/mme-main/locate={prompt,oracle},refine={highlight,mean} --out "$r/mme-main" --brief --gallery 0
for folder in "$r"/methods/*/; do cof tiny methods . "$folder" --pages-only; done
