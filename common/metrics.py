"""Metric sums: added over batches and devices, divided once by their weight."""

from collections.abc import Mapping


def add(total: Mapping[str, float], more: Mapping[str, float]) -> dict[str, float]:
    """Entry by entry, in Python floats (64 bit)."""
    return {name: total.get(name, 0.0) + float(value) for name, value in more.items()}


def means(sums: Mapping[str, float], prefix: str = "") -> dict[str, float]:
    """Every entry but "weight", divided by it; `{}` if nothing was added."""
    weight = sums.get("weight", 0.0)
    if weight == 0.0:
        return {}
    return {f"{prefix}{k}": v / weight for k, v in sums.items() if k != "weight"}
