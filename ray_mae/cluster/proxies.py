"""Proxies of the environment: named where a connection fails, since they are often the cause."""

from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass


def proxy_of(url: str) -> tuple[str, int] | None:
    """Returns host and port of the proxy that the environment has for a URL; None where there is none."""
    parts = urlsplit(url)
    proxies = getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(parts.hostname or ""):
        return None
    there = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    return there.hostname or "", there.port or {"https": 443, "socks5": 1080}.get(there.scheme, 80)


def describe_proxy(url: str) -> str:
    """Returns what the environment says of a proxy for a URL, as the end of a sentence; no password."""
    parts = urlsplit(url)
    variable = f"{parts.scheme.upper()}_PROXY"
    if (proxy := proxy_of(url)) is None:
        return f"no {variable} of this environment is used for it"
    host = f" for {parts.hostname}" if parts.hostname else ""
    return (
        f"it goes through the proxy {proxy[0]}:{proxy[1]} of {variable}{host}; hosts that NO_PROXY names "
        "are reached without it"
    )
