"""How the dropout of a frozen base is set, before its model is made, and which of it is active."""

from typing import Any


def set_dropout(config: Any, value: float) -> list[str]:
    """Set every dropout of a configuration, nested ones included; return what was set.

    Rates at which whole layers are left out (`layerdrop`) are no dropout: they are only ever
    set to zero.
    """
    changed = []
    for key, current in list(vars(config).items()):
        if hasattr(current, "to_diff_dict"):
            changed += [f"{key}.{name}" for name in set_dropout(current, value)]
        elif _is_dropout(key, current) and (value == 0 or "layerdrop" not in key):
            setattr(config, key, value)
            changed.append(key)
    return changed


def active_dropout(config: Any) -> list[str]:
    """Return the names of every dropout of a configuration that is not zero."""
    found = []
    for key, current in vars(config).items():
        if hasattr(current, "to_diff_dict"):
            found += [f"{key}.{name}" for name in active_dropout(current)]
        elif _is_dropout(key, current) and current:
            found.append(key)
    return found


def _is_dropout(key: str, value: Any) -> bool:
    return "drop" in key and isinstance(value, int | float) and not isinstance(value, bool)
