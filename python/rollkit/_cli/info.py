"""`rollkit info`."""

from __future__ import annotations

import argparse
import os
import platform
from typing import Any, Final

from rollkit._cli import text
from rollkit._cli.arguments import add_json

OPTIONAL: Final = (
    ("torch", "torch"),
    ("jax", "jax"),
    ("pyarrow", "arrow"),
    ("obstore", "remote"),
    ("ray", "ray"),
    ("grain", "grain"),
    ("datasets", "datasets"),
    ("matplotlib", "plot"),
    ("safetensors", "cli"),
    ("ml_dtypes", ""),
)
"""Optional packages, and the extra that says which version."""


def add(commands: Any) -> None:
    """Add the command."""
    info = commands.add_parser("info", help="versions, build and optional packages")
    info.set_defaults(run=_run)
    add_json(info)


def _run(options: argparse.Namespace) -> int:
    import numpy as np

    from rollkit import _native
    from rollkit._extras import how_to_install

    found = {package: _version(package) for package, _ in OPTIONAL}
    system = f"{platform.system()} {platform.machine()}"
    if options.json:
        text.json_object(
            {
                "rollkit": _native.__version__,
                "build": _native.build_profile,
                "python": platform.python_version(),
                "numpy": np.__version__,
                "platform": system,
                "cpus": {"usable": _cpus(), "machine": os.cpu_count()},
                "packages": found,
            }
        )
        return 0
    text.table(
        [
            ("rollkit", f"{_native.__version__} ({_native.build_profile} build)"),
            ("python", f"{platform.python_version()} ({platform.python_implementation()})"),
            ("numpy", np.__version__),
            ("platform", system),
            ("cpus", f"{_cpus()} usable, {os.cpu_count()} in the machine"),
        ]
    )
    text.heading("Optional packages")
    text.table(
        (package, found[package] or f"not installed ({how_to_install(name, package)})")
        for package, name in OPTIONAL
    )
    return 0


def _version(package: str) -> str | None:
    from importlib import metadata

    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _cpus() -> int:
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1
