"""Numbers as people read them: in the terminal, in summaries and on pages."""


def significant(value: float, digits: int = 3, *, small: float = 1e-3) -> str:
    """Returns a number with so many decimals, or where these would hide it so many significant digits.

    Args:
        value: 0.71234 becomes 0.712, 0.000896 stays 0.000896.
        digits: decimals, or significant digits.
        small: what is nearer to 0 has significant digits.
    """
    return f"{value:.{digits}g}" if 0 < abs(value) < small else f"{value:.{digits}f}"


ENDS = ("", "_low", "_high")
"""What stands behind a metric's name for its value, and for the ends of its interval."""


def with_interval(value: float, low: float, high: float) -> str:
    """Returns value [low, high], or the value and that there is no interval, where its ends are NaN."""
    if low != low:
        return f"{significant(value)} (no interval)"
    return f"{significant(value)} [{significant(low)}, {significant(high)}]"


def hours_text(hours: float) -> str:
    """Returns a duration in the unit that fits it, from seconds to days."""
    if hours >= 100:
        return f"{hours / 24:.1f} days"
    if hours >= 1:
        return f"{hours:.1f} hours"
    return f"{60 * hours:.0f} minutes" if hours > 0.05 else f"{3600 * hours:.0f} seconds"


def size_text(number: float) -> str:
    """Returns bytes in the unit that fits them, from B to TB."""
    for unit in ("B", "kB", "MB", "GB"):
        if number < 1000:
            return f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:.3g} TB"
