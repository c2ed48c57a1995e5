"""Reads a page of the web without letting it reach where it should not: a link in a search result is a stranger's.

Private, link-local, loopback and other special addresses are refused, at every redirect again; the connection goes to
the very address that was checked, so that a name cannot point elsewhere a moment later. Size, time and redirects are
bounded. What comes back is text for a reader, and data: nothing in it is ever run or followed.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin

from lightning_mem1.environments.qa.retrieval.page_text import charset, readable
from lightning_mem1.environments.qa.retrieval.page_text import plain_text as plain_text
from lightning_mem1.environments.qa.retrieval.passage import RetrievalError
from lightning_mem1.io.http_client import MAX_SHOWN, PORTS, TROUBLES, Reply, exchange
from lightning_mem1.io.redaction import shown

REDIRECTS = (301, 302, 303, 307, 308)
READABLE = ("text/html", "text/plain", "application/xhtml+xml")
GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")  # all that is handed out; outside lie mapped, local and translated ones
# handed out, but for protocols, relays, documentation and tunnels that carry an IPv4 address to be reached behind them
SPECIAL = [
    ipaddress.ip_network(each)
    for each in (
        *("192.0.0.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.175.48.0/24"),
        *("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20"),
    )
]
ISATAP = (0x00005EFE, 0x02005EFE)  # third quarter of an address that ends in the IPv4 address behind a tunnel


@dataclass(frozen=True)
class Limits:
    """What a page may cost.

    Attributes:
        timeout_s: For the whole page, redirects included.
        max_bytes: Of the page.
        max_redirects: Followed at most.
        max_chars: Of the text that is returned.
        allowed: ``host:port`` that may be reached although it is private, e.g. of a test server.
    """

    timeout_s: float = 10.0
    max_bytes: int = 2 << 20
    max_redirects: int = 3
    max_chars: int = 4000
    allowed: Collection[str] = ()


def read_page(url: str, limits: Limits = Limits()) -> str:  # noqa: B008
    """Return the readable text of a page.

    Raises:
        RetrievalError: it may not or cannot be read; the message says why.
    """
    until = time.monotonic() + limits.timeout_s
    try:
        for _ in range(limits.max_redirects + 1):
            content, location = _visit(url, limits, until)
            if location is None:
                return readable(content, until)[: limits.max_chars]
            url = urljoin(url, location)
    except TROUBLES as error:
        reason = shown(str(error))[:MAX_SHOWN] or type(error).__name__
        raise RetrievalError(f"page not read: {reason}") from error
    raise RetrievalError(f"page not read: more than {limits.max_redirects} redirects")


def _visit(url: str, limits: Limits, until: float) -> tuple[str, str | None]:
    """The page's text as sent, or where it redirects to."""

    def choose(host: str, port: int, found: Sequence[str]) -> Sequence[str]:
        return checked_addresses(host, port, found, limits.allowed)

    headers = {"Accept": ", ".join(READABLE)}
    with exchange(url, headers=headers, until=until, max_bytes=limits.max_bytes, choose=choose) as reply:
        if reply.status in REDIRECTS and reply.headers.get("Location"):
            return "", reply.headers["Location"]
        return _text(reply), None


def _text(reply: Reply) -> str:
    kind, _, more = reply.headers.get("Content-Type", "text/plain").partition(";")
    kind, encoding = kind.strip().lower(), reply.headers.get("Content-Encoding", "identity")
    if reply.status != 200 or kind not in READABLE or encoding != "identity":
        raise ValueError(f"expected a page of text, got status {reply.status}, {kind[:80]}, {encoding[:80]}")
    return reply.read().decode(charset(more), "replace")


def checked_addresses(host: str, port: int, found: Sequence[str], allowed: Collection[str] = ()) -> Sequence[str]:
    """The addresses of a host, all of which may be connected to.

    Raises:
        ValueError: any of them is not public, or the port is none of the web's.
    """
    if f"{host}:{port}" in allowed:
        return found
    if port not in PORTS.values():
        raise ValueError(f"refused port {port}: expected 80 or 443")
    for address in found:
        if not is_public(address):
            raise ValueError(f"refused address {address} of {host[:100]}: expected a public one")
    return found


def is_public(address: str) -> bool:
    """Whether an address is one of the open internet's.

    False for private, loopback, link-local, multicast, reserved and documentation addresses, and for IPv6 addresses
    that stand for an IPv4 address (mapped, compatible, translated, 6to4, Teredo, NAT64, ISATAP), whichever it is.
    """
    ip = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(ip, ipaddress.IPv6Address) and (ip not in GLOBAL_IPV6 or (int(ip) >> 32) & 0xFFFFFFFF in ISATAP):
        return False
    special = any(ip in network for network in SPECIAL if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not special
