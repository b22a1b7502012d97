"""Numbers as people read them: in the terminal, in summaries and on pages."""


def significant(value: float, digits: int = 3) -> str:
    """Returns a number with so many decimals, or where these would hide it so many significant digits.

    Args:
        value: 0.71234 becomes 0.712, 0.000896 stays 0.000896.
        digits: decimals, and significant digits of what is below a hundredth (of three).
    """
    small = 0 < abs(value) < 10.0 ** (1 - digits)
    return f"{value:.{digits}g}" if small else f"{value:.{digits}f}"
