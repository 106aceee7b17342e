#!/usr/bin/env bash
# Builds a wheel for every CPython that this machine has, installs each alone in an environment of its own, and runs
# there the tests that need no framework.
#
#     scripts/wheels.sh [DIR]        # wheels and environments go to DIR (dist)
#
# zig links against an old libc, so that the wheels run on any Linux since 2014.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
tools=$out/tools

[ -x "$tools/bin/maturin" ] || {
    python3 -m venv "$tools"
    "$tools/bin/pip" install --quiet --constraint constraints.txt maturin uv ziglang
}

# Interpreters by version, each once; one on the path may be a stub that does not run.
interpreters() {
    local version found
    for version in 3.11 3.12 3.13; do
        for found in "python$version" "${PYENV_ROOT:-$HOME/.pyenv}/versions/$version".*/bin/"python$version"; do
            "$found" -c '' 2>/dev/null && echo "$found" && break
        done
    done
}

build() {
    PATH=$tools/bin:$PATH "$tools/bin/maturin" build --quiet --release --zig --compatibility manylinux_2_17 \
        --out "$out/$1" "${@:2}"
    ls "$out/$1"/*.whl
}

try() { # NAME INTERPRETER WHEEL
    local env=$out/env-$1
    rm -rf "$env"
    "$2" -m venv "$env"
    "$tools/bin/uv" pip install --quiet --python "$env/bin/python" --constraint constraints.txt "$3" --group test-bare
    "$env/bin/python" -m pytest -q tests
}

for python in $(interpreters); do
    name=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    wheel=$(build "$name" --interpreter "$python")
    printf '\n== %s\n' "$wheel"
    try "$name" "$python" "$wheel"
done
