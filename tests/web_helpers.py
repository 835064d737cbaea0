"""A small web server on this machine: files with ranges and broken connections, and what the Hub's client asks the Hub."""

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml


class Server(ThreadingHTTPServer):
    """Serves `files` (path -> bytes). Each number in `cuts` ends one answer to a GET after so many bytes; `asked` is the log.

    Where `hold` is set, an answer that is cut does not end but waits. Without `tags`, no answer says which version it is of.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.asked: list[tuple[str, str, str | None]] = []  # method, path, Range
        self.hold = False
        self.released = threading.Event()
        self.tags = True

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def put(self, repo: str, name: str, content: bytes) -> None:
        """Put a file into the repository `repo` of the Hub."""
        self.files[f"/{repo}/resolve/main/{name}"] = content


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer(body=False)

    def do_GET(self) -> None:
        self.answer(body=True)

    def answer(self, *, body: bool) -> None:
        asked = self.headers.get("Range")
        self.server.asked.append((self.command, self.path, asked))
        path = re.sub(r"/resolve/[0-9a-f]{40}/", "/resolve/main/", self.path)  # a commit: there is only one
        content = self.server.files.get(path)
        if content is None:
            known = any(name.startswith(path.partition("/resolve/")[0] + "/") for name in self.server.files)
            return self.say(404, {}, {"X-Error-Code": "EntryNotFound" if known else "RepoNotFound"})
        start = int(asked.removeprefix("bytes=").partition("-")[0]) if asked else 0
        if asked and start >= len(content):
            return self.say(416, {})
        self.send_response(206 if asked else 200)
        if self.server.tags:
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", "c" * 40)
        self.send_header("Content-Length", str(len(content) - start))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        self.end_headers()
        if body:
            cut = self.server.cuts.pop(0) if self.server.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
            if cut is not None and self.server.hold:
                self.wfile.flush()
                self.server.released.wait(60)
        return None

    def do_POST(self) -> None:
        """What an upload asks: is the repository there, is the card right, how to send, and the files themselves."""
        self.server.asked.append((self.command, self.path, None))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.say(401, {"error": "Invalid username or password."})
        if self.path == "/api/repos/create":
            asked = json.loads(body)
            return self.say(200, {"url": f"{self.server.address}/{asked['organization']}/{asked['name']}"})
        if self.path == "/api/validate-yaml":
            matter = json.loads(body)["content"].split("---\n")[1]
            assert isinstance(yaml.safe_load(matter), dict)
            return self.say(200, {"errors": [], "warnings": []})
        repo = self.path.removeprefix("/api/models/").rpartition("/")[0].rpartition("/")[0]
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            return self.say(200, {"files": [{"path": p, "uploadMode": "regular", "shouldIgnore": False} for p in names]})
        lines = [json.loads(line) for line in body.splitlines()]
        for file in (line["value"] for line in lines if line["key"] == "file"):
            self.server.files[f"/{repo}/resolve/main/{file['path']}"] = base64.b64decode(file["content"])
        address = f"{self.server.address}/{repo}/commit/{'c' * 40}"
        return self.say(200, {"commitUrl": address, "commitOid": "c" * 40, "success": True})

    def say(self, status: int, value: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(value).encode()
        self.send_response(status)
        for name, text in (headers or {}).items():
            self.send_header(name, text)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)


@contextmanager
def serving() -> Iterator[Server]:
    """A server for as long as the block lasts."""
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
