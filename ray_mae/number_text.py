"""Numbers as people read them: in the terminal, in summaries and on pages."""


def significant(value: float, digits: int = 3, *, small: float = 1e-3) -> str:
    """Returns a number with so many decimals, or where these would hide it so many significant digits.

    Args:
        value: 0.71234 becomes 0.712, 0.000896 stays 0.000896.
        digits: decimals, or significant digits.
        small: what is nearer to 0 has significant digits.
    """
    return f"{value:.{digits}g}" if 0 < abs(value) < small else f"{value:.{digits}f}"
