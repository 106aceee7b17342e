"""Which framework an array belongs to; lists and numbers count as NumPy's."""

from __future__ import annotations

from typing import Any

from rollkit import _frameworks
from rollkit._frameworks import Framework as Framework
from rollkit._frameworks import check_ints as check_ints
from rollkit._frameworks import dtype_name as dtype_name
from rollkit._frameworks import is_traced as is_traced
from rollkit._frameworks import kind_of as kind_of
from rollkit._frameworks import same_framework as same_framework


def framework_of(value: Any) -> Framework:
    """Return the framework of an array; lists and numbers count as NumPy's."""
    return _frameworks.framework_of(value) or "numpy"
