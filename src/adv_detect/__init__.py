"""Detection of adversarial attacks on image classifiers and face-recognition networks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adv_detect.interface import Gate, fit, load

__version__ = "0.1.0"
__all__ = ["Gate", "fit", "load"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: importing the package alone loads nothing else."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.interface"), name)


def __dir__() -> list[str]:
    """List what there is, imported or not."""
    return sorted({*globals(), *__all__})
