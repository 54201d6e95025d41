"""Objects by dotted path, as configuration names them."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from adv_detect.errors import ConfigurationError, unknown_choice

MOST_NAMES = 10


def import_dotted(key: str, path: str, expected: str) -> Any:
    """Import what a dotted path names.

    Args:
        key: Where the path is configured, for errors.
        path: Module and attribute, ``package.module.name``.
        expected: Description of valid values, for errors.

    Returns:
        The attribute.

    Raises:
        ConfigurationError: The module cannot be imported, or has no such attribute.
    """
    module_name, _, attribute = path.rpartition(".")
    try:
        module = importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as exc:
        raise ConfigurationError(
            f"{key}: cannot import module {module_name!r} of {path!r} ({exc}); expected {expected}"
        ) from exc
    if not hasattr(module, attribute):
        public = [entry for entry in dir(module) if not entry.startswith("_")]
        close = difflib.get_close_matches(attribute, public) or public[:MOST_NAMES]
        raise unknown_choice(f"{key}: {module_name!r} has no {attribute!r}", path, close)
    return getattr(module, attribute)
