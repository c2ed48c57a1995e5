"""Trajectories as one HTML file that needs nothing else: a list with filters, and each turn of the chosen one.

The data are in it as JSON in which no tag can begin, the script puts them in as text only, and a content security
policy lets nothing but this very script and style act, whatever a policy, a page or a task wrote.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template
from typing import Any

from lightning_mem1.context.tags import printable

MAX_BYTES = 8_000_000  # of the data of all trajectories together

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'; \
script-src '$script_hash'; style-src '$style_hash'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
</head>
<body>
<header>
<h1>$title</h1>
<p class="soft">$summary</p>
<div id="filters">
<label>row <select id="row"><option value="">all</option></select></label>
<label>ended by <select id="stop"><option value="">anything</option></select></label>
<label><input type="checkbox" id="invalid"> with invalid turns</label>
<label>reward below <input type="number" id="below" step="any"></label>
<label>shading <select id="shade"><option value="logprob">log-prob</option><option value="advantage">advantage</option>\
</select></label>
<span id="shown" class="soft" role="status"></span>
</div>
<p class="soft keys"><kbd>j</kbd> <kbd>k</kbd> next and previous trajectory, <kbd>n</kbd> <kbd>p</kbd> turn, \
arrow keys inside the tokens; a darker token was less likely</p>
</header>
<noscript><p>This page needs its own script to show anything.</p></noscript>
<div id="columns"><nav id="list" aria-label="trajectories"></nav><main id="main"></main></div>
<script type="application/json" id="data">$data</script>
<script>$script</script>
</body>
</html>
""")


def page(
    episodes: Sequence[Mapping[str, Any]],
    title: str,
    num_trajectories: int | None = None,
    max_bytes: int = MAX_BYTES,
) -> str:
    """The content of the file.

    Args:
        episodes: What `episode` made of each trajectory; the first is shown first.
        title: Of the page.
        num_trajectories: How many there were in all; None for as many as there are episodes.
        max_bytes: Episodes stop being put in when their data would take more than this; the page says how many are
            missing.
    """
    kept: list[str] = []
    room = max_bytes
    for each in episodes:
        text = _embedded(each)
        if len(text) > room:
            break
        kept.append(text)
        room -= len(text)
    total = len(episodes) if num_trajectories is None else num_trajectories
    left_out = f", {total - len(kept):,} more left out" if total > len(kept) else ""
    style, script = (Path(__file__).with_name(f"page.{end}").read_text(encoding="utf-8") for end in ("css", "js"))
    return _PAGE.substitute(
        title=html.escape(printable(title)),
        summary=f"{len(kept):,} {'trajectory' if len(kept) == 1 else 'trajectories'}{left_out}",
        style=style,
        style_hash=_digest(style),
        script=script,
        script_hash=_digest(script),
        data=f'{{"episodes":[{",".join(kept)}]}}',
    )


def _embedded(value: Mapping[str, Any]) -> str:
    """JSON of ASCII characters that holds no tag, no comment and no entity of HTML."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.translate({ord(char): f"\\u{ord(char):04x}" for char in "<>&"})


def _digest(text: str) -> str:
    """What a content security policy calls a text by."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"
