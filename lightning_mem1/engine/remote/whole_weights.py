"""Gives servers all weights of a policy in full training: as a checkpoint that they reload, or over NCCL.

A server has one set of weights, so the first rank gives them to each server before a rollout, between turns, and the
others wait. Weights have a name, and a server says which ones it acts with: one that was restarted gets them again.
"""

from __future__ import annotations

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from lightning_mem1.engine.protocol.client import PATH, Reply, question, read_reply
from lightning_mem1.engine.remote.nccl import NcclSender
from lightning_mem1.engine.remote.probe import Probe, probe_of_all
from lightning_mem1.engine.remote.servers import Server, ServerPool, Trouble
from lightning_mem1.engine.remote.weight_routes import VllmRoutes, routes_of
from lightning_mem1.io.atomic_files import atomic_folder
from lightning_mem1.policy.sharding import trains_parts, whole_weights
from lightning_mem1.policy.whole_weights import in_checkpoint_format
from lightning_mem1.types import GenerationRequest

if TYPE_CHECKING:
    from lightning_mem1.policy.policy import Policy


class WholeWeights:
    """The policy's weights, as servers are to have them.

    Args:
        policy: Whose weights; in full training.
        fleet: The servers.
        version: Says which rl_step the weights are of.
        training: Whether the servers' own weights are those that train from the start. Else they are asked for turns as
            they are, as long as nothing was trained.
    """

    def __init__(self, policy: Policy, fleet: ServerPool, version: Callable[[], int], training: bool) -> None:
        self.policy, self.fleet, self.current, self.training = policy, fleet, version, training
        self.name: str | None = None  # of the weights now; None for whatever a server has
        self.version = 0
        self.probe: Probe | None = None
        self._path: Path | None = None
        self._weights: dict[str, Tensor] | None = None  # of a policy that is shared out among ranks, for NCCL
        self._senders: dict[str, NcclSender] = {}
        self._temporary: tempfile.TemporaryDirectory[str] | None = None

    def publish(self) -> None:
        """Take the weights as they are now, and give them to the servers; every rank has to call it.

        Nothing happens where what servers have is fresh enough. A server that does not take them gets another chance
        before its next turn.
        """
        version, lag = self.current(), self.fleet.settings.max_staleness
        fresh = self.name is not None and 0 <= version - self.version <= lag
        if fresh or (not version and not self.training):
            return
        _meet()  # no rank plays any more
        weights = whole_weights(self.policy) if trains_parts(self.policy) else None
        self.version, self.name = version, _shared(f"mem1-{version:06d}-{uuid.uuid4().hex[:12]}")
        before = self._path
        if self.fleet.settings.transfer == "folder":
            self._path = Path(_shared(str(self._root() / self.name)))
        if not trains_parts(self.policy):
            self.probe = probe_of_all(self.policy, self.probe)
        if _is_first():
            self._weights = weights if self.fleet.settings.transfer == "nccl" else None
            if self._path is not None:
                with atomic_folder(self._path) as beside:
                    self.policy.save(beside, weights)
            for server in self.fleet.servers:
                with suppress(Trouble):
                    self.give(server)
            if before is not None:
                shutil.rmtree(before, ignore_errors=True)
        _meet()

    @contextmanager
    def naming(self, server: Server) -> Iterator[str]:
        """What a turn asks a server for.

        Raises:
            Trouble: the server did not take the weights.
        """
        if server.troubles or server.version != self.version:  # it may have been restarted
            self.give(server)
        yield str(server.base)

    def give(self, server: Server) -> None:
        """See that a server acts with the weights.

        Raises:
            Trouble: it does not.
        """
        with server.lock:
            server.version = None
            if server.base is None or not server.adapter:
                self.fleet.introduce(server)
            if self.name is not None:
                routes = routes_of(self.fleet, server)
                if routes.current() != self.name:
                    server.adapter = None
                    self._send(server, routes)
                if server.adapter != self.name:
                    self._check(server)
            server.adapter, server.version = self.name, self.version

    def staleness(self) -> int:
        """How many rl_steps the servers' weights lag behind."""
        return self.current() - self.version if self.name is not None else 0

    def tidy(self) -> None:
        """Nothing: the checkpoint now stays, for a server that is restarted."""

    def _send(self, server: Server, routes: object) -> None:
        assert self.name is not None
        if self._path is not None:
            routes.reload(self.name, str(self._path))  # type: ignore[attr-defined]
            return
        if not isinstance(routes, VllmRoutes):
            raise Trouble(
                f"{server.url} takes no weights over NCCL: expected vLLM; set model.engine.server.transfer folder"
            )
        if not _is_first():
            raise Trouble(f"{server.url} has lost its weights: it gets them again before the next rollout")
        sender = self._senders.pop(server.url, None) or NcclSender(server, routes, self._named)
        sender.send(self.name)
        self._senders[server.url] = sender  # one that failed is made again

    def _named(self) -> Iterator[tuple[str, Tensor]]:
        return in_checkpoint_format(self.policy, self._weights)

    def _check(self, server: Server) -> None:
        """See that weights that were taken act."""

        def ask(request: GenerationRequest) -> Reply:
            reply = self.fleet.call(server, PATH, question(request, str(server.base)))
            try:
                return read_reply(reply, request, self.policy.vocab_size)
            except ValueError as error:
                raise Trouble(f"nonsense from {server.url}: {error}") from None

        if self.probe is None or self.fleet.settings.text:
            return
        if shown := self.probe.serves_other(ask, server.max_tokens):
            raise Trouble(f"{server.url} took the weights '{self.name}' and still serves {shown}")

    def _root(self) -> Path:
        given = self.fleet.settings.adapter_folder
        if given is not None:
            return Path(given).expanduser().resolve()
        if self._temporary is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="lightning_mem1-")
        return Path(self._temporary.name)


def _ranks() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _is_first() -> bool:
    return not _ranks() or torch.distributed.get_rank() == 0


def _meet() -> None:
    if _ranks():
        torch.distributed.barrier()


def _shared(text: str) -> str:
    """The first rank's."""
    found = [text]
    if _ranks():
        torch.distributed.broadcast_object_list(found)
    return found[0]
