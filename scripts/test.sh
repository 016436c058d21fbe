#!/usr/bin/env bash
# Check everything: ruff, then pytest. Arguments go to pytest: scripts/test.sh -k seam
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

source scripts/environment.sh
make_environment test

"$python" -m ruff check .
"$python" -m ruff format --check .

# By file, so that each of the two workers imports TensorFlow once. What TensorFlow logs at its start
# would come after pytest's closing line.
exec "$python" -m pytest -p xdist -n 2 --dist loadfile "$@" \
  2> >(grep -vE '^(WARNING: All log messages before absl|[IWE]0000 )' >&2)
