"""Turns from servers outside of this process, over OpenAI's completions protocol with token ids.

A try that fails is repeated on another server; a turn whose tries are spent ends its episode with an error, and the
run continues unless no server is left. Only ids that a server sampled are trained on: text that is tokenised again may
become other ids.
"""

from __future__ import annotations

import math
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

from lightning_mem1.context.chat_template import begins
from lightning_mem1.context.continuation import continuing
from lightning_mem1.context.detokenizer import Detokenizer
from lightning_mem1.engine.protocol.client import PATH, Reply, question, read_reply, with_stop
from lightning_mem1.engine.remote.adapters import Adapters
from lightning_mem1.engine.remote.servers import Server, ServerPool, Trouble
from lightning_mem1.engine.remote.whole_weights import WholeWeights
from lightning_mem1.engine.settings import EngineSettings, check_fits
from lightning_mem1.engine.stopping import StopRule
from lightning_mem1.io.http_client import is_final
from lightning_mem1.types import Completion, GenerationRequest

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy

Outcome = tuple[GenerationRequest, Reply | Exception]


class Interrupted(Exception):
    """Nobody waits for turns any more."""


class RemoteEngine:
    """Generates turns on servers; satisfies `types.Engine`. `num_slots` turns are asked for at once.

    Args:
        policy: Its tokenizer reads the turns, its adapter is what servers are given; its base is what they serve.
        settings: Which servers, limits.
        version: Says which rl_step the policy's weights are of.
        training: Whether turns are learnt from: then ids and log-probabilities must be the sampled ones.
        tell: Takes a line that the user should see; each kind of line once per server.
    """

    def __init__(
        self,
        policy: Policy,
        settings: EngineSettings,
        version: Callable[[], int] = lambda: 0,
        training: bool = False,
        tell: Callable[[str], None] = lambda line: print(line, file=sys.stderr),
    ) -> None:
        self.policy, self.settings, self.training = policy, settings, training
        self.fleet = ServerPool(settings.server)
        if training and settings.server.text:
            raise ValueError(
                "training needs the ids that were sampled: expected model.engine.server.text false, got true; set it "
                "to false"
            )
        self.adapters: Adapters | WholeWeights
        if settings.server.transfer == "adapter":
            self.adapters = Adapters(policy, self.fleet, version)
        else:
            self.adapters = WholeWeights(policy, self.fleet, version, training)
        self._stop = StopRule(policy.tokenizer, policy.end_ids)
        self._further_ends = sorted(self._stop.end_ids - {policy.tokenizer.eos_token_id})  # a server may know one alone
        self._begins = begins(policy.tokenizer) if settings.server.text else []
        self._decode = Detokenizer(policy.tokenizer)
        self.counts: Counter[str] = Counter(retries=0, nonsense=0, failed_turns=0)
        self._tell, self._told = tell, set[str]()
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._queue: deque[GenerationRequest] = deque()
        self._running = 0
        self._done: SimpleQueue[Outcome] = SimpleQueue()  # what is still under way ends in a queue that nobody reads

    @property
    def max_context_tokens(self) -> int:
        """Most tokens of a context plus the turn generated in it, on every server."""
        limits = [server.max_tokens for server in self.fleet.servers if server.max_tokens is not None]
        return min([self.settings.max_context_tokens, *limits])

    @property
    def pending(self) -> int:
        """Turns queued or running."""
        return len(self._queue) + self._running

    def publish(self) -> None:
        """Have the weights as they are now ready for `reset`; in full training every rank has to call it.

        Raises:
            ValueError: see `Adapters`.
        """
        self.adapters.publish()

    def reset(self) -> None:
        """Forget queued turns, and give every server that is there the weights as they are now.

        Raises:
            ConnectionError: none of them can take any.
            ValueError: something about the settings, see `ServerPool` and `Adapters`.
        """
        self._forget()
        if problem := self.fleet.read_again():
            self.say("list", problem)
        self.fleet.look_again()
        self.publish()
        problems: list[str] = []
        for attempt in range(self.settings.server.num_retries + 1):
            self._pause(attempt)
            ready = [server for server in self.fleet.servers if not server.troubles] or self.fleet.servers
            problems = [problem for server in ready if (problem := self._prepare(server))]
            if len(problems) < len(ready):
                break
        else:
            raise self._none_left(problems[-1])
        self.adapters.tidy()
        wanted = self.settings.max_context_tokens
        if (longest := self.max_context_tokens) < wanted:
            line = f"contexts end at {longest} tokens on the servers: expected {wanted}"
            self.say("short", f"{line} (model.engine.max_context_tokens); longer episodes end by 'context'")

    def _prepare(self, server: Server) -> str:
        """Give a server its weights; returns what was wrong, nothing when all is well."""
        try:
            self.adapters.give(server)
        except Trouble as error:
            self._check_key(error)
            self.fleet.bad(server)
            self.say(f"prepare {server.url}", f"unhealthy server: {error}")
            return str(error)
        server.troubles = 0
        return ""

    def submit(self, request: GenerationRequest) -> None:
        """Queue one turn.

        Raises:
            ValueError: an empty context, or one that leaves no room for `max_new_tokens`.
        """
        check_fits(request, self.max_context_tokens)
        self._queue.append(request)

    def step(self) -> list[Completion]:
        """Wait for a turn and return all that have ended.

        Raises:
            ConnectionError: no server is left.
            ValueError: a server gives no ids and training needs them, or it wants another key.
        """
        while self._queue and self._running < self.settings.num_slots:
            self._start(self._queue.popleft())
        if not self._running:
            return []
        ended = [self._done.get()]
        while True:
            try:
                ended.append(self._done.get_nowait())
            except Empty:
                break
        self._running -= len(ended)
        return [self._finish(*outcome) for outcome in ended]

    def interrupt(self) -> None:
        """Let a `step` that waits in another thread end with `Interrupted`."""
        self._done.put((GenerationRequest(-1, [], 0), Interrupted()))

    def _start(self, request: GenerationRequest) -> None:
        done, text = self._done, None
        if self.settings.server.text:  # here, not in the thread: a tokenizer is no place for many of them
            ids = list(request.context_ids)
            begun = ids[: len(self._begins)] == self._begins  # a server begins texts by itself
            text = self._decode(ids[len(self._begins) :] if begun else ids)

        def work() -> None:
            try:
                done.put((request, self._ask(request, text)))
            except Exception as error:  # every thread ends in an outcome
                done.put((request, error))

        self._running += 1
        threading.Thread(target=work, daemon=True, name=f"turn-{request.session}").start()

    def _ask(self, request: GenerationRequest, text: str | None) -> Reply:
        """Try until a server has given a good turn.

        Raises:
            Trouble: all tries are spent, but servers are there.
            ConnectionError, ValueError: see `step`.
        """
        failed: Server | None = None
        for attempt in range(self.settings.server.num_retries + 1):
            with self.fleet.taking(failed) as server:
                if attempt:
                    self._count("retries")
                    self._pause(attempt if server.troubles else 0)
                try:
                    reply = self._try(server, request, text)
                except Trouble as error:
                    problem, failed = error, server
                else:
                    self.fleet.well(server)
                    return reply
                if problem.status and is_final(problem.status) and problem.status != 404:
                    break  # the turn's own fault
                self.fleet.bad(server)
        if not self.fleet.answered or not self.fleet.any_there():
            raise self._none_left(str(problem))
        raise Trouble(f"no turn after {attempt + 1} tries: {problem}")

    def _try(self, server: Server, request: GenerationRequest, text: str | None) -> Reply:
        with self.adapters.naming(server) as name:
            try:
                found = self.fleet.call(server, PATH, question(request, name, text, self._further_ends))
            except Trouble as error:
                self._check_key(error)
                if error.status == 404:  # restarted, it has lost what it was given
                    server.base = server.adapter = server.version = None
                    server.retired.clear()
                self.say(f"unhealthy {server.url}", f"unhealthy server: {error}")
                raise
        try:
            reply = read_reply(found, request, self.policy.vocab_size)
            self._check_numbers(server, reply)
            return reply
        except ValueError as error:
            self._count("nonsense")
            self.say(f"nonsense {server.url}", f"nonsense from {server.url}: {error}")
            raise Trouble(f"nonsense from {server.url}: {error}") from None

    def _check_numbers(self, server: Server, reply: Reply) -> None:
        """Refuse log-probabilities that are all exactly 0 from a server that never gave others: they are made up."""
        server.has_numbers |= any(reply.logprobs)
        if len(reply.logprobs) > 1 and not server.has_numbers:
            raise ValueError(
                f"expected log-probabilities of {len(reply.logprobs)} sampled ids, got exactly 0 for every one of them"
            )

    def _finish(self, request: GenerationRequest, outcome: Reply | Exception) -> Completion:
        if isinstance(outcome, Trouble):
            self._count("failed_turns")
            return Completion(request.session, [], [], error=str(outcome))
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.ids is None:
            return self._from_text(request, outcome)
        end = self._stop.length(request, outcome.ids)
        return Completion(request.session, outcome.ids[:end], outcome.logprobs[:end])

    def _from_text(self, request: GenerationRequest, reply: Reply) -> Completion:
        """Ids of a text; what was sampled is not known, and neither are its log-probabilities."""
        if self.training:
            raise ValueError(
                f"server gives no ids: expected 'token_ids' in each choice, got text alone from {self.fleet.urls}; "
                "training needs the ids that were sampled: use vLLM 0.10.2 or later, or mem1 serve"
            )
        self.say("text", "server gives no ids: its text is tokenised again, which may differ from what it sampled")
        reads = continuing(self.policy.tokenizer)
        ids = list(reads.encode(with_stop(reply, request.stop), add_special_tokens=False))[: request.max_new_tokens]
        ids = ids or sorted(self._stop.end_ids)[:1]  # it ended before it began
        if not ids:
            return Completion(request.session, [], [], error="the server wrote nothing")
        return Completion(request.session, ids, [math.nan] * len(ids))

    def numbers(self) -> dict[str, float]:
        """Counts since the engine was made, and how far the oldest weights lag behind; see `RolloutCallback`."""
        counts = {name: float(count) for name, count in self.counts.items()}
        return {**counts, "staleness": float(self.adapters.staleness())}

    def _pause(self, attempt: int) -> None:
        if attempt:
            time.sleep(self.settings.server.pause_s * 2 ** (attempt - 1))

    def _count(self, name: str) -> None:
        with self._lock:
            self.counts[name] += 1

    def say(self, kind: str, line: str) -> None:
        """Show the user a line, once of each kind."""
        with self._lock:
            new = kind not in self._told
            self._told.add(kind)
        if new:
            self._tell(line)

    def _check_key(self, error: Trouble) -> None:
        if error.status in (401, 403):
            raise ValueError(
                f"server wants another key: expected one in environment variable {self.settings.server.key_variable}, "
                f"got {error}"
            ) from None

    def _none_left(self, problem: str) -> ConnectionError:
        return ConnectionError(
            f"no server left: expected turns from {self.fleet.urls}, got {problem}; start a server, or set "
            "model.engine.server.urls"
        )
