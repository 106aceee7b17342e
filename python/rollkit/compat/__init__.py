"""Functions with the names, signatures, results and errors of those of training frameworks.

Change an import and keep the rest. Each module names the version it matches.
"""

from rollkit.compat._patched import patched as patched

__all__ = ["patched"]
