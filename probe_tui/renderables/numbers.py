"""Numbers as text, the same on every panel."""

from __future__ import annotations

ENTROPY_UNITS = {"dr_grpo": "nats/slot", "sequence": "nats/sequence", "per_token": "nats/token"}
"""Of H under each `--weighting`."""


def number(value: float | None, digits: int = 3) -> str:
    """`digits` significant digits; a dash where there is none."""
    # Adding 0 turns −0 into 0.
    return "—" if value is None else f"{value + 0.0:.{digits}g}"


def interval(lo: float | None, hi: float | None) -> str:
    """Both bounds in brackets."""
    if lo is None and hi is None:
        return "no interval"
    return f"[{number(lo)}, {number(hi)}]"


def ci95(bounds: tuple[float | None, float | None] | None) -> str:
    """A 95% confidence interval, or that there is none."""
    known = bounds is not None and bounds != (None, None)
    return f"95% {interval(*bounds)}" if bounds is not None and known else interval(None, None)


def share(value: float | None) -> str:
    """A fraction in percent."""
    if value is None:
        return "—"
    value = 0.0 if abs(value) < 0.0005 else value
    return f"{value:.1%}" if abs(value) < 10 else f"{number(100 * value)}%"


def count(value: int) -> str:
    """A count in five characters or less; exact below 10,000."""
    if value < 10_000:
        return str(value)
    for power, letter in ((3, "k"), (6, "M"), (9, "G"), (12, "T")):
        if value < 10 ** (power + 3):
            scaled = value / 10**power
            return f"{scaled:.1f}{letter}" if scaled < 99.95 else f"{value // 10**power}{letter}"
    return f"{value:.0e}"


def size(nbytes: int) -> str:
    """512 B, 3.4 GiB."""
    scaled = float(nbytes)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(scaled) < 1023.5:
            return f"{scaled:.3g} {unit}"
        scaled /= 1024
    return f"{scaled:.3g} TiB"


def duration(seconds: float) -> str:
    """1.9s, 42s, 2m05s, 1h02m."""
    if not 0 <= seconds < 360_000:
        return "—"
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole % 3600 // 60:02}m"
