"""What every benchmark does in the end: write what it found beside the hardware, and hold its ratios against a file.

Seconds differ from machine to machine; ratios of arms that took turns in one run differ far less. Only they are held.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

GIB = 1 << 30
T = TypeVar("T")


@dataclass(frozen=True)
class Cost(Generic[T]):
    """What a piece of work gave and took.

    Attributes:
        value: What it gave.
        cpu_s: Processor seconds of this process. Other processes on the machine change them far less than the clock.
        peak_mib: By how much resident memory grew at most while it ran; NaN where the system does not say (not Linux).
    """

    value: T
    cpu_s: float
    peak_mib: float


def cost_of(work: Callable[[], T]) -> Cost[T]:
    """Carry out `work` and measure it."""
    before = _begin_peak()
    begun = time.process_time()
    value = work()
    return Cost(value, time.process_time() - begun, _status_mib("VmHWM") - before)


def _begin_peak() -> float:
    """Forget the peak of resident memory so far; return what is resident now, in MiB."""
    try:
        ctypes.CDLL(None).malloc_trim(0)  # or room that an earlier piece of work left behind would hide this one's
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return float("nan")
    return _status_mib("VmRSS")


def _status_mib(name: str) -> float:
    """A line of this process' status (Linux), in MiB."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return float("nan")
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{name}:")) / 1024


@dataclass(frozen=True)
class Ratios:
    """Ratios by name, by which way is better."""

    higher: dict[str, float] = field(default_factory=dict)
    lower: dict[str, float] = field(default_factory=dict)


def some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    """Reads names with commas between them; argparse tells which of them is not known."""

    def names(given: str) -> list[str]:
        found = given.split(",")
        if unknown := [name for name in found if name not in known]:
            raise argparse.ArgumentTypeError(f"expected some of {','.join(known)}, got {','.join(unknown)}")
        return found

    return names


def commit_of(checkout: Path) -> str:
    """The commit of a checkout, short."""
    command = ["git", "-C", str(checkout), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def integers(given: str) -> list[int]:
    """Reads integers with commas between them."""
    return [int(part) for part in given.split(",")]


def arguments(description: str) -> argparse.ArgumentParser:
    """A parser that knows the two options of every benchmark; the baseline stands beside the script."""
    parser = argparse.ArgumentParser(description=description)
    committed = str(Path(sys.argv[0]).with_suffix(".json"))
    parser.add_argument("--output", metavar="FILE", help="write what was found, with the hardware, as JSON")
    parser.add_argument(
        "--check",
        nargs="?",
        const=committed,
        metavar="FILE",
        help=f"fail when a ratio is worse than in this file by more than the tolerance ({committed})",
    )
    return parser


def finish(
    found: dict[str, Any], ratios: Callable[[dict[str, Any]], Ratios], options: argparse.Namespace, tolerance: float
) -> int:
    """Write and check as the options say.

    Args:
        found: What was measured, as JSON holds it.
        ratios: Reads the ratios out of such a measurement, this one or the committed one.
        options: Of a parser made by `arguments`.
        tolerance: How much worse a ratio may be, as a part of the committed one.

    Returns:
        The exit status: 1 when a ratio became worse, or when there is nothing to compare.
    """
    now = ratios(found)
    problem = _compare(now, ratios, Path(options.check), tolerance) if options.check else ""
    if options.output:  # after the comparison: it may be the same file
        Path(options.output).write_text(json.dumps({**surroundings(), **found}, indent=1) + "\n")
    if options.check:
        print(f"{options.check}: {problem or 'no ratio is worse'}", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


def _compare(now: Ratios, ratios: Callable[[dict[str, Any]], Ratios], committed: Path, tolerance: float) -> str:
    """What is wrong with a run beside a file, in one line; empty when nothing is."""
    try:
        before = ratios(json.loads(committed.read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        return f"expected the JSON of an earlier run, got {type(error).__name__}: {error}; make it with --output"
    return worse(now, before, tolerance)


def worse(found: Ratios, committed: Ratios, tolerance: float) -> str:
    """What became worse than committed by more than the tolerance, in one line; empty when nothing did.

    >>> worse(Ratios(lower={"time": 0.6}), Ratios(lower={"time": 0.5}), 0.1)
    'time: expected at most 0.5 + 10%, got 0.6'
    """
    shared = [(found.higher, committed.higher, "least", "-"), (found.lower, committed.lower, "most", "+")]
    told = [
        f"{name}: expected at {bound} {before[name]:.3g} {sign} {tolerance:.0%}, got {now[name]:.3g}"
        for now, before, bound, sign in shared
        for name in before
        if name in now and float(f"{sign}1") * (now[name] - before[name]) > tolerance * abs(before[name])
    ]
    if not any(name in now for now, before, *_ in shared for name in before):
        names = [*committed.higher, *committed.lower]
        return f"expected ratios such as '{names[0] if names else 'any'}', got none of the same name; nothing compared"
    return "; ".join(told)


def surroundings() -> dict[str, Any]:
    """What a figure has to be read with: the machine, its threads, and how busy it was."""
    return {
        "hardware": hardware(),
        "threads": os.environ.get("OMP_NUM_THREADS", "default"),
        "load_average_5_min": round(os.getloadavg()[1], 1),
    }


def hardware() -> str:
    """Name the machine."""
    from lightning_mem1.tracking.run_metadata import cpu  # imports torch, which is no part of what is measured

    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / GIB
    return f"{os.cpu_count()} cores {cpu()}, {memory:.0f} GiB, Python {platform.python_version()}"
