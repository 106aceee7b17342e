#!/usr/bin/env bash
# Writes constraints.txt anew: the newest versions, resolved together, of all that the Makefile installs,
# that the extras name, and that rollkit is used beside (the group `beside` in pyproject.toml).
# Needs uv: `scripts/renew_constraints.sh .venv/bin/uv`, or uv on the path.
set -euo pipefail
cd "$(dirname "$0")/.."

exec "${1:-uv}" pip compile --quiet --upgrade --python-version 3.11 --no-annotate --no-header \
    --no-emit-index-url --no-emit-find-links \
    pyproject.toml --extra all --group build --group test --group lint --group beside \
    --output-file constraints.txt
