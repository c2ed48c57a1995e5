"""Commands of the shop.

mem1 serve-shop --human                                 # play in a browser
mem1 serve-shop --index FOLDER                          # make the saved form beforehand
mem1 serve-shop --generate FOLDER --num-products 1000000  # write a catalogue of any size
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

from lightning_mem1.checks import PORT, check_number
from lightning_mem1.environments.webshop.generated.bulk import write_catalogue
from lightning_mem1.environments.webshop.server import ShopServer
from lightning_mem1.environments.webshop.shop import Shop
from lightning_mem1.io.redaction import shown


def main(arguments: Sequence[str] | None = None) -> int:
    """Carry out a command; return the exit code."""
    options = parser().parse_args(arguments)
    try:
        if options.generate:
            write_catalogue(options.generate, options.num_products, options.seed)
            print(f"wrote {options.num_products:,} products to {options.generate}")
        elif options.index:
            start = time.perf_counter()
            shop = Shop.from_folder(options.index, skip_malformed=options.skip_malformed)
            seconds = time.perf_counter() - start
            print(f"{len(shop.products):,} products, {len(shop.goals):,} goals, open after {seconds:.1f} s")
        else:
            _serve(options)
    except (ValueError, OSError) as error:
        print(f"error: {shown(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("closed", file=sys.stderr)
    return 0


def _serve(options: argparse.Namespace) -> None:
    check_number("--port", options.port, PORT)
    if options.catalogue is None:
        if options.human_goals:
            raise ValueError("--human-goals needs official files, got the generated catalogue: give --catalogue FOLDER")
        shop = Shop.generated(options.seed, options.num_products)
    else:
        shop = Shop.from_folder(
            options.catalogue, human_goals=options.human_goals, seed=options.seed, skip_malformed=options.skip_malformed
        )
    server = ShopServer(shop, shop.split(options.split), options.host, options.port, seed=options.seed)
    print(f"the shop is open at {server.url} (Ctrl-C closes it)", flush=True)
    with server:
        server.serve_forever()


def parser(kind: type[argparse.ArgumentParser] = argparse.ArgumentParser) -> argparse.ArgumentParser:
    """The parser of the command line, of a kind of parser."""
    made = kind("mem1 serve-shop", description="Commands of the shop.")
    command = made.add_mutually_exclusive_group(required=True)
    command.add_argument("--human", action="store_true", help="serve the shop as web pages on this machine")
    command.add_argument("--index", metavar="FOLDER", help="make the saved form of official files")
    command.add_argument("--generate", metavar="FOLDER", help="write a generated catalogue as official files")
    made.add_argument("--catalogue", metavar="FOLDER", help="official files; without, a generated catalogue")
    made.add_argument("--human-goals", action="store_true", help="instructions written by people")
    made.add_argument("--split", choices=("train", "val", "test"), default="train", help="goals to draw from")
    made.add_argument("--skip-malformed", action="store_true", help="skip and count malformed products")
    made.add_argument("--num-products", type=int, default=1000, help="size of a generated catalogue")
    made.add_argument("--seed", type=int, default=0, help="draws prices, goals and a generated catalogue")
    made.add_argument("--host", default="127.0.0.1", help="a loopback address")
    made.add_argument("--port", type=int, default=8765, help="0 for any free one")
    return made
