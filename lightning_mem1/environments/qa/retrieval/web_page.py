"""Reads a page of the web without letting it reach where it should not: a link in a search result is a stranger's.

Private, link-local, loopback and other special addresses are refused, at every redirect again; the connection goes to
the very address that was checked, so that a name cannot point elsewhere a moment later. Size, time and redirects are
bounded. What comes back is text for a reader, and data: nothing in it is ever run or followed.
"""

from __future__ import annotations

import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Collection
from dataclasses import dataclass
from html.parser import HTMLParser
from http.client import HTTPConnection, HTTPException, HTTPResponse
from urllib.parse import urljoin, urlsplit

from lightning_mem1.environments.qa.retrieval.passage import RetrievalError
from lightning_mem1.io.http_client import read_bounded

PORTS = {"http": 80, "https": 443}
REDIRECTS = (301, 302, 303, 307, 308)
READABLE = ("text/html", "text/plain", "application/xhtml+xml")
# addresses that carry an IPv4 address to be reached through a gateway
TUNNELS = [ipaddress.ip_network(each) for each in ("64:ff9b::/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")]


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
    deadline = time.monotonic() + limits.timeout_s
    try:
        for _ in range(limits.max_redirects + 1):
            content, location = _visit(url, limits, deadline)
            if location is None:
                return readable(content)[: limits.max_chars]
            url = urljoin(url, location)
    except (OSError, ValueError, HTTPException) as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise RetrievalError(f"page not read: {reason}") from error
    raise RetrievalError(f"page not read: more than {limits.max_redirects} redirects")


def _visit(url: str, limits: Limits, deadline: float) -> tuple[str, str | None]:
    """The page's text as sent, or where it redirects to."""
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname or parts.username is not None:
        raise ValueError(f"expected an address of http or https without a password, got {url[:100]!r}")
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("no time left")
    host, port = parts.hostname, parts.port or PORTS[parts.scheme]
    connection = _Pinned(host, port, checked_address(host, port, limits.allowed), left, parts.scheme == "https")
    try:
        path = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
        connection.request("GET", path, headers={"Accept": ", ".join(READABLE), "Accept-Encoding": "identity"})
        reply = connection.getresponse()
        if reply.status in REDIRECTS and reply.headers.get("Location"):
            return "", reply.headers["Location"]
        return _text(reply, limits, deadline), None
    finally:
        connection.close()


def _text(reply: HTTPResponse, limits: Limits, deadline: float) -> str:
    kind, encoding = reply.headers.get_content_type(), reply.headers.get("Content-Encoding", "identity")
    if reply.status != 200 or kind not in READABLE or encoding != "identity":
        raise ValueError(f"expected a page of text, got status {reply.status}, {kind}, {encoding}")
    body = read_bounded(reply, deadline, limits.max_bytes)
    charset = reply.headers.get_content_charset() or "utf-8"
    try:
        return body.decode(charset, "replace")
    except LookupError:  # a charset that nobody knows
        return body.decode("utf-8", "replace")


def checked_address(host: str, port: int, allowed: Collection[str] = ()) -> str:
    """The address to connect to.

    Raises:
        ValueError: any address of the host is not public, or the port is none of the web's.
    """
    found = [str(each[4][0]) for each in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    if f"{host}:{port}" in allowed:
        return found[0]
    if port not in PORTS.values():
        raise ValueError(f"refused port {port}: expected 80 or 443")
    for address in found:
        if not is_public(address):
            raise ValueError(f"refused address {address} of {host[:100]}: expected a public one")
    return found[0]


def is_public(address: str) -> bool:
    """False for private, loopback, link-local, multicast and reserved addresses, also inside IPv6."""
    ip = ipaddress.ip_address(address.split("%")[0])
    mapped = getattr(ip, "ipv4_mapped", None)
    if mapped is not None:
        return is_public(str(mapped))
    tunnelled = any(ip in network for network in TUNNELS if network.version == ip.version)
    return ip.is_global and not ip.is_multicast and not tunnelled


class _Pinned(HTTPConnection):
    """A connection to an address that was checked; the name is for the server and its certificate."""

    def __init__(self, host: str, port: int, address: str, timeout: float, secure: bool) -> None:
        super().__init__(host, port, timeout=timeout)
        self.address, self.secure = address, secure

    def connect(self) -> None:
        self.sock = socket.create_connection((self.address, self.port), self.timeout)
        if self.secure:
            self.sock = ssl.create_default_context().wrap_socket(self.sock, server_hostname=self.host)


def readable(page: str) -> str:
    """The text of an HTML page; with trafilatura (extra ``web``) only its main part."""
    try:
        import trafilatura
    except ImportError:
        return plain_text(page)
    return trafilatura.extract(page, include_comments=False) or plain_text(page)


def plain_text(page: str) -> str:
    """Words of a page without markup, scripts, styles and menus.

    >>> plain_text("<p>Red <b>shoes</b></p><script>x()</script>")
    'Red shoes'
    """
    reader = _Reader()
    reader.feed(page)
    reader.close()
    lines = (" ".join(line.split()) for line in "".join(reader.parts).splitlines())
    return "\n".join(line for line in lines if line)


class _Reader(HTMLParser):
    SKIPPED = frozenset(("script", "style", "noscript", "template", "nav", "header", "footer", "aside", "form", "head"))
    BLOCKS = re.compile(r"p|div|br|li|tr|h[1-6]|section|article|blockquote|title|table|ul|ol")

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.parts: list[str] = []
        self.skipped: list[str] = []

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag in self.SKIPPED:
            self.skipped.append(tag)
        elif self.BLOCKS.fullmatch(tag):
            self.parts.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in self.skipped:
            del self.skipped[self.skipped.index(tag) :]
        elif self.BLOCKS.fullmatch(tag):
            self.parts.append("\n")

    def handle_data(self, data: str) -> None:
        if not self.skipped:
            self.parts.append(data)
