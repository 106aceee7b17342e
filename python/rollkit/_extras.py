"""Optional packages, imported where they are used."""

import importlib
import re
from typing import Any


def extra(module: str, name: str) -> Any:
    """Import a module of an optional package, or say how to get what its extra `name` needs."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        if error.name != package:
            raise
        raise ModuleNotFoundError(
            f"this needs {package}; install it with: {how_to_install(name, package)}", name=module
        ) from None


def how_to_install(name: str, package: str) -> str:
    """Return the command that installs a package, and what else of extra `name` is missing.

    The least versions are those that `pyproject.toml` declares.
    """
    import shlex  # for a line that most never see

    declared = {_distribution(need): need for need in needs(name)}
    absent = [need for one, need in declared.items() if one != package and not _is_installed(one)]
    return shlex.join(["pip", "install", declared.get(package, package), *absent])


def needs(name: str) -> list[str]:
    """Return what extra `name` needs, such as `["pyarrow>=16"]`."""
    from importlib import metadata  # a third of the time it takes to import rollkit

    try:
        declared = metadata.requires("rollkit") or []
    except metadata.PackageNotFoundError:  # run from a source tree
        return []
    found = (re.fullmatch(r"""(.*?)\s*;\s*extra\s*==\s*["'](.*)["']""", line) for line in declared)
    return [match[1] for match in found if match and match[2] == name]


def _distribution(need: str) -> str:
    return re.split(r"[^\w.-]", need, maxsplit=1)[0]


def _is_installed(package: str) -> bool:
    from importlib import metadata

    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True
