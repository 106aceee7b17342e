#!/usr/bin/env bash
# Builds the sdist, and from it alone a wheel for every CPython that this machine has and one for all others (abi3).
# Installs each in an environment of its own, and runs there the sdist's tests, those that need no framework.
#
#     scripts/wheels.sh [DIR]        # all of it goes to DIR (dist)
#
# zig links against an old libc, so that the wheels run on any Linux since 2014.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(mkdir -p "${1:-dist}" && cd "${1:-dist}" && pwd)
tools=$out/tools
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$out/target}

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

unpacked_sdist() {
    rm -rf "$out/sdist"
    "$tools/bin/maturin" sdist --out "$out/sdist" >&2
    tar -xzf "$out"/sdist/*.tar.gz -C "$out/sdist" --strip-components 1
    echo "$out/sdist"
}

build() { # NAME MATURIN'S OPTIONS
    rm -rf "$out/${1:?}"
    PATH=$tools/bin:$PATH "$tools/bin/maturin" build --quiet --release --zig --compatibility manylinux_2_17 \
        --out "$out/$1" "${@:2}" >&2
    ls "$out/$1"/*.whl
}

try() { # NAME INTERPRETER WHEEL
    local env=$out/env-$1
    printf '\n== %s\n' "$(basename "$3")"
    rm -rf "$env"
    "$2" -m venv "$env"
    "$tools/bin/uv" pip install --quiet --python "$env/bin/python" --constraint constraints.txt "$3[cli]" --group test-bare
    "$env/bin/python" -c 'import rollkit._native as it; assert "site-packages" in it.__file__, it; print(it.__file__)'
    "$env/bin/python" -m pytest -q -p no:cacheprovider tests
}

unpacked=$(unpacked_sdist)
cd "$unpacked"
for python in $(interpreters); do
    name=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
    wheel=$(build "$name" --interpreter "$python")
    try "$name" "$python" "$wheel"
done
# The one for all others is tried on the newest.
wheel=$(build abi3 --interpreter "$python" --features abi3)
try abi3 "$python" "$wheel"
