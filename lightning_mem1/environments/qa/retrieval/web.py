"""Searches the web over Serper's protocol, records what came, and plays it back.

The key comes from the environment and is written to no file, log or message.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from lightning_mem1.checks import RETRIES, TIMEOUT_S, Ranges, check_choice
from lightning_mem1.environments.qa.retrieval.passage import Passage, RetrievalError
from lightning_mem1.environments.qa.retrieval.service import RetryPolicy, ask
from lightning_mem1.environments.qa.retrieval.web_page import Limits, read_page
from lightning_mem1.io.atomic_files import write_atomic

KEY = "SERPER_API_KEY"
MODES = ("live", "record", "replay")
MAX_QUERY_CHARS = 2000


@dataclass
class WebSettings:
    """How the web is searched.

    Args:
        mode: live; record (live, and kept in `folder`); replay (from `folder` only, nothing leaves the machine).
        folder: Of recordings.
        endpoint: Where a search is posted to.
        num_pages: Of so many results the page itself is read, in place of the snippet.
        max_page_chars: Of a page's text.
        timeout_s: Of a search or a page.
        num_retries: Further tries of a failed search.
        allowed: ``host:port`` of private servers whose pages may be read (test servers); all others are refused.
    """

    mode: Literal["live", "record", "replay"] = "live"
    folder: str | None = None
    endpoint: str = "https://google.serper.dev/search"
    num_pages: int = 0
    max_page_chars: int = 2000
    timeout_s: float = 10.0
    num_retries: int = 3
    allowed: tuple[str, ...] = ()
    ranges: ClassVar[Ranges] = {"timeout_s": TIMEOUT_S, "num_retries": RETRIES}


class Web:
    """Finds results of a web search.

    Args:
        settings: See `WebSettings`.

    Raises:
        ValueError: the key is missing, or recordings are asked for without a folder.
    """

    def __init__(self, settings: WebSettings) -> None:
        check_choice("mode", settings.mode, MODES, "data.web.mode")
        if settings.mode != "live" and not settings.folder:
            raise ValueError(f"no recordings: mode {settings.mode} needs a folder, got none; set data.web.folder")
        if settings.mode != "replay" and not os.environ.get(KEY):
            raise ValueError(f"no key: expected environment variable {KEY}, got none; set it, or data.web.mode replay")
        self.settings = settings
        self.patience = RetryPolicy(settings.timeout_s, settings.num_retries)
        self.limits = Limits(settings.timeout_s, max_chars=settings.max_page_chars, allowed=settings.allowed)

    def search(self, queries: Sequence[str], top_k: int = 10) -> list[list[Passage]]:
        """Return the results of each query: title, snippet or page, link.

        Raises:
            RetrievalError: no good reply after all tries, or none was recorded.
        """
        return [self._search(query[:MAX_QUERY_CHARS], top_k) for query in queries]

    def _search(self, query: str, top_k: int) -> list[Passage]:
        question = {"q": query, "num": top_k}
        found = read_results(self._kept("search", question, lambda: self._ask(question)))[:top_k]
        read = [self._with_page(each) for each in found[: self.settings.num_pages]]
        return [*read, *found[len(read) :]]

    def _ask(self, question: dict[str, Any]) -> Any:
        headers = {"X-Api-Key": os.environ[KEY]}

        def checked(reply: Any) -> Any:
            read_results(reply)
            return reply

        return ask(self.settings.endpoint, question, checked, self.patience, headers)

    def _with_page(self, result: Passage) -> Passage:
        """A page that cannot be read leaves the snippet: the failure is reported."""
        if not result.url:
            return result
        page = self._kept("page", {"url": result.url}, lambda: _page(result.url, self.limits))
        if not isinstance(page, dict) or not isinstance(page.get("text", ""), str):
            raise RetrievalError(f"recording of page {result.url[:100]} is damaged: expected a text; delete it")
        text = page["text"] if "text" in page else f"{result.text} ({page.get('problem')})"
        return Passage(result.title, text, result.url)

    def _kept(self, kind: str, question: dict[str, Any], fetch: Callable[[], Any]) -> Any:
        """What was recorded for a question, or what `fetch` brings, recorded where that is asked for."""
        if not self.settings.folder or self.settings.mode == "live":
            return fetch()
        digest = hashlib.blake2b(json.dumps([kind, question]).encode("utf-8", "replace"), digest_size=12).hexdigest()
        path = Path(self.settings.folder) / f"{kind}-{digest}.json"
        if path.is_file():
            return _recorded(path)
        if self.settings.mode == "replay":
            raise RetrievalError(f"not recorded: expected {path.name} for {str(question)[:100]}, got none")
        reply = fetch()
        write_atomic(path, json.dumps({"question": question, "reply": reply}).encode())
        return reply


def _page(url: str, limits: Limits) -> dict[str, str]:
    """The text of a page, or why it was not read: both are recorded, so that a replay is the same."""
    try:
        return {"text": read_page(url, limits)}
    except RetrievalError as error:
        return {"problem": str(error)}


def _recorded(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["reply"]
    except (ValueError, KeyError, TypeError) as error:
        raise RetrievalError(f"recording '{path}' is damaged: expected JSON with a reply; delete it") from error


def read_results(reply: Any) -> list[Passage]:
    """Results of a reply: the answer box first when there is one, then ``organic``.

    Raises:
        ValueError: it is no reply of Serper's.
    """
    organic = reply.get("organic") if isinstance(reply, dict) else None
    if not isinstance(organic, list) or not all(isinstance(each, dict) for each in organic):
        raise ValueError("expected 'organic' with a list of results, got something else")
    box = reply.get("answerBox") or reply.get("answer_box")
    answer = (box.get("answer") or box.get("snippet")) if isinstance(box, dict) else None
    first = [Passage("Answer", answer, str(box.get("link") or ""))] if isinstance(answer, str) else []
    return first + [
        Passage(str(each.get("title") or ""), str(each.get("snippet") or ""), str(each.get("link") or ""))
        for each in organic
    ]
