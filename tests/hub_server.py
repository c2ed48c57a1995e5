"""A loopback stand-in of the hub's HTTP API: repositories are created, files committed and large ones uploaded."""

from __future__ import annotations

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Hub(ThreadingHTTPServer):
    """What the stand-in knows.

    Attributes:
        repositories: Name to whether it is private.
        files: Path in a repository (``ORG/NAME/PATH``) to bytes.
        messages: Of the commits.
        refuse: Status with which creating a repository is refused; None for the rules below.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.repositories: dict[str, bool | None] = {}
        self.files: dict[str, bytes] = {}
        self.large: dict[str, bytes] = {}
        self.messages: list[str] = []
        self.tokens: set[str] = set()
        self.refuse: int | None = None

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def __enter__(self) -> Hub:
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *args: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *args: Any) -> None:
        """Nothing."""

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def answer(self, content: Any = None, status: int = 200) -> None:
        data = json.dumps({} if content is None else content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def do_POST(self) -> None:
        self.server.tokens.add(self.headers.get("Authorization", ""))
        given = self.body()
        if self.path == "/api/repos/create":
            return self.create(json.loads(given))
        if self.path == "/api/validate-yaml":
            return self.answer({"errors": [], "warnings": []})
        if self.path.endswith("/preupload/main"):
            files = [
                {"path": each["path"], "uploadMode": "lfs" if each["path"].endswith(".safetensors") else "regular",
                 "shouldIgnore": False, "oid": None}
                for each in json.loads(given)["files"]
            ]  # fmt: skip
            return self.answer({"files": files})
        if self.path.endswith(".git/info/lfs/objects/batch"):
            objects = [
                {**each, "actions": {"upload": {"href": f"{self.server.endpoint}/large/{each['oid']}"}}}
                for each in json.loads(given)["objects"]
            ]
            return self.answer({"transfer": "basic", "objects": objects})
        if self.path.endswith("/commit/main"):
            return self.commit([json.loads(line) for line in given.splitlines()])
        return self.answer({"error": f"no such route {self.path}"}, 404)

    def do_PUT(self) -> None:
        self.server.large[self.path.rpartition("/")[2]] = self.body()
        self.answer()

    def do_GET(self) -> None:
        name = "/".join(self.path.split("/")[3:5])
        if "/tree/" in self.path and name in self.server.repositories:
            kept = [path for path in self.server.files if path.startswith(f"{name}/")]
            return self.answer(
                [{"type": "file", "path": p.removeprefix(f"{name}/"), "size": 1, "oid": "0"} for p in kept]
            )
        if self.path.startswith("/api/models/") and name in self.server.repositories:
            siblings = [
                {"rfilename": path.removeprefix(f"{name}/")} for path in self.server.files if path.startswith(name)
            ]
            return self.answer({"id": name, "modelId": name, "sha": "0" * 40, "siblings": siblings})
        return self.answer({"error": f"no such route {self.path}"}, 404)

    def create(self, given: dict[str, Any]) -> None:
        name = f"{given['organization']}/{given['name']}"
        status = self.server.refuse or (409 if name in self.server.repositories else 200)
        if status == 200:
            self.server.repositories[name] = given.get("private", given.get("visibility") == "private")
        address = f"{self.server.endpoint}/{name}"
        self.answer({"url": address, "name": name, "error": "as the test says"}, status)

    def commit(self, lines: list[dict[str, Any]]) -> None:
        name = "/".join(self.path.split("/")[3:5])
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.messages.append(value["summary"])
            elif line["key"] == "file":
                self.server.files[f"{name}/{value['path']}"] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                self.server.files[f"{name}/{value['path']}"] = self.server.large[value["oid"]]
            elif line["key"] == "deletedFile":
                del self.server.files[f"{name}/{value['path']}"]
        self.answer({"success": True, "commitUrl": f"{self.server.endpoint}/{name}/commit/0", "commitOid": "0" * 40})
