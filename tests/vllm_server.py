"""A real vLLM server in an environment of its own, for tests and benchmarks that compare with it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

START_S = 3600  # nothing is asserted about time: this only ends a hopeless wait
SURROUNDINGS = {
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_SERVER_DEV_MODE": "1",  # routes for whole weights
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # one process less to start
    "TORCH_COMPILE_DISABLE": "1",  # its first turn would wait for a C++ compiler
    "VLLM_ENGINE_READY_TIMEOUT_S": str(START_S),
    "VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS": str(START_S),
}


def surroundings(python: str) -> dict[str, str]:
    """The variables of a process in the environment of an interpreter."""
    path = f"{Path(python).parent}{os.pathsep}{os.environ['PATH']}"
    own = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    package = str(Path(__file__).parents[1])  # for our worker extension
    return {**own, **SURROUNDINGS, "PATH": path, "PYTHONPATH": package}


@contextmanager
def serving(python: str, folder: Path, options: str) -> Iterator[str]:
    """Serve the model of a folder as ``bundled`` on a free port of this machine; inside, its address.

    Args:
        python: The interpreter of an environment with vllm-cpu.
        folder: Weights and tokenizer; the server's log goes there.
        options: Further options of the server.

    Raises:
        RuntimeError: it did not start; with the end of its log.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = f"--model {folder} --served-model-name bundled --host 127.0.0.1 --port {port} --dtype float32"
    settings += f" --enforce-eager --max-model-len 1024 --logprobs-mode processed_logprobs {options}"
    command = [python, "-m", "vllm.entrypoints.openai.api_server", *settings.split()]
    log = folder / "log"
    with open(log, "w") as file:
        server = subprocess.Popen(
            command, env=surroundings(python), stdout=file, stderr=file, cwd=folder, start_new_session=True
        )
    try:
        _wait(f"http://127.0.0.1:{port}", server, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()


def _wait(url: str, server: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and server.poll() is None:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except OSError:
            time.sleep(1)
    raise RuntimeError(f"vLLM did not start: {log.read_text()[-2000:]}")
