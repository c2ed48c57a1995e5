"""Turns from a chat model behind an endpoint, as text: for a teacher whose words are tokenised later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any

from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.engine.protocol.client import Reply, with_stop
from lightning_mem1.engine.scripted import opening, without_opening
from lightning_mem1.io.chat_client import ChatClient
from lightning_mem1.io.json_service import ServiceError
from lightning_mem1.types import Completion, GenerationRequest

MAX_SEED = 1 << 31  # endpoints take seeds of 32 bits at least


class ChatEngine:
    """Asks for each turn with the text of its context as one message; satisfies `types.Engine`.

    A turn that the endpoint does not give after all tries ends its episode with an error. Log-probs are 0: nobody
    learns from them as such.

    Args:
        client: Asks the endpoint.
        tokenizer: Turns contexts into text, and turns into ids.
        parallel: Turns asked for at once.
        tell: Takes a line about the first turn that was not given.
    """

    max_context_tokens = 1 << 30

    def __init__(
        self, client: ChatClient, tokenizer: Any, parallel: int = 8, tell: Callable[[str], None] = lambda line: None
    ) -> None:
        self.client, self.parallel, self._tell = client, parallel, tell
        self._reads, self._decode = continuing(tokenizer), Detokenizer(tokenizer)
        self.num_asked = self.num_failed = 0
        self._pool = ThreadPoolExecutor(parallel, "teacher")
        self.reset()

    def __enter__(self) -> ChatEngine:
        """Threads live as long as the block."""
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return len(self._queue) + self._running

    def reset(self) -> None:
        """Forget queued turns; what is under way ends in a queue that nobody reads."""
        self._queue: deque[GenerationRequest] = deque()
        self._done: SimpleQueue[tuple[GenerationRequest, str | ServiceError]] = SimpleQueue()
        self._running = 0

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn."""
        self._queue.append(request)

    def step(self) -> list[Completion]:
        """Wait for a turn that ended."""
        while self._queue and self._running < self.parallel:
            request = self._queue.popleft()
            self._running += 1
            self._pool.submit(self._ask, request, self._decode(request.context_ids), self._done)
        request, said = self._done.get()
        self._running -= 1
        self.num_asked += 1
        if isinstance(said, ServiceError):
            self.num_failed += 1
            if self.num_failed == 1:
                self._tell(str(said))
            return [Completion(request.session, [], [], error=str(said))]
        ids = list(self._reads.encode(said, add_special_tokens=False))
        return [Completion(request.session, ids, [0.0] * len(ids))]

    def _ask(self, request: GenerationRequest, context: str, done: SimpleQueue[Any]) -> None:
        message = {"role": "user", "content": context}
        try:
            said = self.client.say(
                [message], request.max_new_tokens, request.temperature, request.stop, request.seed % MAX_SEED
            )
            text = opening(context) + without_opening(said.text, context)
            text = with_stop(Reply(text, None, [], said.finish_reason, said.stop), request.stop)
            text = without_opening(ended(text, request.stop), context)
            done.put((request, text if text.strip() else ServiceError("the teacher wrote nothing")))
        except ServiceError as error:
            done.put((request, error))
        except Exception as error:  # every thread ends in an outcome
            done.put((request, ServiceError(f"{type(error).__name__} while asking {self.client.address}")))


def ended(text: str, stop: tuple[str, ...]) -> str:
    """A turn up to what ends it: endpoints that know no stop strings write on.

    >>> ended("<answer>a</answer> and so on", ("</answer>",))
    '<answer>a</answer>'
    """
    ends = [text.index(each) + len(each) for each in stop if each in text]
    return text[: min(ends)] if ends else text
