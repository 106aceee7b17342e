"""Where SkyRL would log."""

from __future__ import annotations

import logging
import sys
from typing import Any

# Where SkyRL has been before, newest first.
_PACKAGES = ("skyrl.train", "skyrl_train")


def warn(module: str, message: str) -> None:
    """Log a warning as SkyRL's `module` does.

    To that module's logger where SkyRL is imported, as what patches it expects; else to loguru's, which is
    SkyRL's, where that is imported; else to `logging`'s `"rollkit.compat.skyrl"`. Nothing is imported for it.
    """
    for package in _PACKAGES:
        logger: Any = getattr(sys.modules.get(f"{package}.{module}"), "logger", None)
        if logger is not None:
            break
    else:
        logger = getattr(sys.modules.get("loguru"), "logger", None)
    (logger or logging.getLogger("rollkit.compat.skyrl")).warning(message)
