"""Optional packages, imported where they are used."""

import importlib
from typing import Any


def extra(module: str, name: str) -> Any:
    """Import an optional package, or say how to get it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.partition(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"this needs {module}; install it with: pip install 'rollkit[{name}]'", name=module
        ) from None
