"""One file for each benchmark; ``memnet.bench`` says what is in one."""

import importlib
import pkgutil
from types import ModuleType


def names() -> list[str]:
    """All benchmarks, in the order of the alphabet."""
    return sorted(module.name.replace("_", "-") for module in pkgutil.iter_modules(__path__))


def load(name: str) -> ModuleType:
    """The benchmark of this name.

    Args:
        name: one of ``names()``.
    """
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}")


def summary(name: str) -> str:
    """What it measures, in one line.

    Args:
        name: one of ``names()``.
    """
    return (load(name).__doc__ or "").strip().partition("\n")[0]
