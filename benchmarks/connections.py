"""What a kept connection saves on a server of turns: small requests by many clients at once, with and without.

    OMP_NUM_THREADS=1 python benchmarks/connections.py --output benchmarks/connections.json

The server is this package's own, in another process, and does nothing but take and send JSON of a turn's size. The two
ways take turns in pairs.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from baseline import Ratios, arguments, finish

from lightning_mem1.io.http_client import exchange

SERVE = """
from lightning_mem1.io.json_server import JsonHandler, server
class Turns(JsonHandler):
    def posts(self):
        return {"/turn": lambda asked: {"ids": asked["ids"][:100]}}
serving = server(Turns)
print(serving.server_port, flush=True)
serving.serve_forever()
"""
QUESTION = json.dumps({"ids": list(range(500))}).encode()
TOLERANCE = 0.3


def requests_per_s(address: str, clients: int, requests: int, keep: bool) -> float:
    """Ask as many clients at once do."""

    def ask(_: int) -> bytes:
        until = time.monotonic() + 60
        with exchange(address, QUESTION, until=until, max_bytes=1 << 20, keep=keep) as reply:
            return reply.read()

    with ThreadPoolExecutor(clients) as threads:
        begun = time.perf_counter()
        replies = list(threads.map(ask, range(requests)))
        seconds = time.perf_counter() - begun
    assert all(json.loads(reply)["ids"] == list(range(100)) for reply in replies)
    return requests / seconds


def ratios(found: dict[str, Any]) -> Ratios:
    """Requests a second with kept connections to those with new ones, the median of the pairs."""
    return Ratios(
        higher={
            f"{each['clients']} clients, kept to new": statistics.median(
                kept / new for kept, new in zip(each["kept"], each["new"], strict=True)
            )
            for each in found["runs"]
        }
    )


def main() -> int:
    """Measure, print, write, check."""
    parser = arguments("Compare kept connections with new ones.")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    runs: list[dict[str, Any]] = []
    with subprocess.Popen([sys.executable, "-c", SERVE], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = f"http://127.0.0.1:{int(server.stdout.readline())}/turn"
        for clients in (1, 64):
            rates: dict[bool, list[float]] = {True: [], False: []}
            for pair in range(options.pairs + 1):
                for keep in (False, True):
                    rate = requests_per_s(address, clients, options.requests, keep)
                    if pair:  # the first one warms up
                        rates[keep].append(round(rate))
            runs.append({"clients": clients, "kept": rates[True], "new": rates[False]})
            print(f"{clients} clients: kept {rates[True]}, new {rates[False]} requests a second")
        server.terminate()
    return finish({"runs": runs}, ratios, options, TOLERANCE)


if __name__ == "__main__":
    sys.exit(main())
