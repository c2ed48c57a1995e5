"""The client that an agent is given: OpenAI's own, one for each episode, over connections that all of them share."""

from __future__ import annotations

from typing import Any

from lightning_mem1.rollout.gateway.agent import Agent, is_async


class Clients:
    """Makes clients of a gateway.

    Args:
        url: The gateway's, with ``/v1``.

    Raises:
        ValueError: OpenAI's client is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._plain: Any = None
        self._waiting: Any = None
        check_installed()

    def client(self, agent: Agent, key: str) -> Any:
        """A client with an episode's key: `openai.AsyncOpenAI` for a coroutine function, else `openai.OpenAI`.

        Another framework takes its address and key, ``client.base_url`` and ``client.api_key``.
        """
        import openai

        if is_async(agent):
            if self._waiting is None:
                connections = openai.DefaultAsyncHttpxClient(trust_env=False)  # this machine is behind no proxy
                self._waiting = openai.AsyncOpenAI(
                    base_url=self.url, api_key="none", timeout=None, http_client=connections
                )
            return self._waiting.with_options(api_key=key)
        if self._plain is None:
            plain = openai.DefaultHttpxClient(trust_env=False)
            self._plain = openai.OpenAI(base_url=self.url, api_key="none", timeout=None, http_client=plain)
        return self._plain.with_options(api_key=key)

    async def close(self) -> None:
        """Close the connections; called in the agents' loop."""
        if self._waiting is not None:
            await self._waiting.close()
        if self._plain is not None:
            self._plain.close()


def check_installed() -> None:
    """Raise ValueError, one line, where OpenAI's client is not installed."""
    try:
        import openai  # noqa: F401
    except ImportError:
        raise ValueError(
            "agents call the policy through OpenAI's client: expected the package openai, got none; "
            "pip install 'lightning-mem1[agents]'"
        ) from None
