"""Pages, files and answers in, a web server on this machine alone out: a token in every address, nothing is changed.

Only Python's own ``http.server``, with what image viewers need of it: byte ranges, HEAD, and a long queue, because a
browser asks for over a hundred chunks at once.
"""

from __future__ import annotations

import getpass
import hmac
import json
import os
import platform
import re
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, BinaryIO
from urllib.parse import parse_qsl, unquote, urlsplit

from tomostain import runs
from tomostain.io.inside import OutsideError, inside_folder

HOST = "127.0.0.1"
_KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".json": "application/json",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
}
_POLICY = (
    "default-src 'self'; script-src 'self'{more}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; worker-src 'self' blob:; object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""What a page may load: nothing from outside this server."""
_LOCAL_NAME = re.compile(r"(127\.0\.0\.1|localhost|\[::1\])(:\d+)?")
_MOST_BODY_BYTES = 2**20
_PIECE_BYTES = 2**18


@dataclass(frozen=True)
class Reply:
    """What a function of a page returns: the bytes and their kind."""

    body: bytes
    kind: str = "application/json"

    @classmethod
    def of_json(cls, value: Any) -> Reply:
        return cls(json.dumps(value, allow_nan=False).encode())


@dataclass(frozen=True)
class Site:
    """What is served below the token: ``texts`` by name, folders by the name that stands before their files.

    ``answers`` are functions for GET (its query) and ``actions`` for POST (its JSON object); what they raise as
    ValueError is shown on the page. ``evaluates``: the page's scripts make code of their own, as decoders do.
    """

    texts: Mapping[str, bytes] = field(default_factory=dict)
    folders: Mapping[str, Path] = field(default_factory=dict)
    answers: Mapping[str, Callable[[Mapping[str, str]], Reply]] = field(default_factory=dict)
    actions: Mapping[str, Callable[[Mapping[str, Any]], Reply]] = field(default_factory=dict)
    evaluates: bool = False


@dataclass(frozen=True)
class Running:
    """A server that is running: port, token, thread, and the requests it answered (method, path, status, range)."""

    port: int
    token: str
    log: list[tuple[str, str, int, str]]
    thread: Thread

    @property
    def address(self) -> str:
        return f"http://{HOST}:{self.port}/v/{self.token}/"

    @property
    def ssh_line(self) -> str | None:
        """The command that makes the address work on the machine where one sits; None where this is that machine."""
        connection = os.environ.get("SSH_CONNECTION", "").split()
        if not connection:
            return None
        here = connection[2] if len(connection) == 4 else platform.node()
        return f"ssh -N -L {self.port}:{HOST}:{self.port} {getpass.getuser()}@{here}"


@contextmanager
def serve(site: Site, *, port: int = 0) -> Iterator[Running]:
    """Serve a site on 127.0.0.1 from a thread of its own until the block ends; port 0 takes a free one.

    Raises
    ------
    ValueError
        The port is taken.
    """
    token, log = secrets.token_urlsafe(18), list[tuple[str, str, int, str]]()
    try:
        server = _Server((HOST, port), partial(_Handler, site, token, log))
    except OSError as error:
        raise ValueError(f"port {port} cannot be opened ({error.strerror}); choose another --port, or none") from None
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Running(server.server_address[1], token, log, thread)
    finally:
        server.shutdown()
        server.server_close()


def serve_until_stopped(site: Site, what: str, *, port: int = 0) -> None:
    """Serve, say where, and return when the user presses Ctrl-C."""
    with serve(site, port=port) as running:
        runs.say(f"{what}: open this address in a browser (Ctrl-C ends it)\n\n    {running.address}\n")
        if running.ssh_line:
            runs.say(f"on your own machine, keep this running and open the same address:\n\n    {running.ssh_line}\n")
        try:
            running.thread.join()
        except KeyboardInterrupt:
            runs.say(f"{what}: stopped")


class _Server(ThreadingHTTPServer):
    request_queue_size = 256
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that closes a connection is no fault."""
        runs.LOGGER.debug("a connection from %s ended early", client_address, exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """One connection; every request must come from this site itself and carry the token."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "tomostain", ""
    timeout = 120

    def __init__(self, site: Site, token: str, log: list[tuple[str, str, int, str]], *args: Any) -> None:
        self._site, self._token, self._log = site, token, log
        super().__init__(*args)

    def do_GET(self) -> None:
        self._reply(head=False)

    def do_HEAD(self) -> None:
        self._reply(head=True)

    def do_POST(self) -> None:
        name = self._checked()
        if name is None:
            return
        action = self._site.actions.get(name)
        length = self.headers.get("Content-Length", "")
        if action is None or not length.isdecimal() or int(length) > _MOST_BODY_BYTES:
            self._refuse(HTTPStatus.NOT_FOUND if action is None else HTTPStatus.BAD_REQUEST)
            return
        try:
            asked = json.loads(self.rfile.read(int(length)))
            self._call(partial(action, asked if isinstance(asked, dict) else {}))
        except (ValueError, RecursionError):
            self._refuse(HTTPStatus.BAD_REQUEST)

    def log_message(self, format: str, *args: Any) -> None:
        """Requests are in the debug log only."""
        runs.LOGGER.debug(format, *args)

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        asked = self.headers.get("Range", "") if getattr(self, "headers", None) else ""
        self._log.append((self.command or "", self.path, int(code), asked))
        super().log_request(code, size)

    def _reply(self, *, head: bool) -> None:
        name = self._checked()
        if name is None:
            return
        if name in self._site.texts:
            self._send(self._site.texts[name], _KINDS.get(Path(name or "x.html").suffix, "text/plain"), head=head)
        elif name in self._site.answers:
            query = dict(parse_qsl(urlsplit(self.path).query))
            self._call(partial(self._site.answers[name], query), head=head)
        else:
            self._file(name, head=head)

    def _checked(self) -> str | None:
        """The name after the token; None where the request was refused."""
        _, _, rest = unquote(urlsplit(self.path).path).partition("/v/")
        token, slash, name = rest.partition("/")
        if not hmac.compare_digest(token.encode(), self._token.encode()) or not slash:
            self._refuse(HTTPStatus.NOT_FOUND)
        elif not self._from_here():
            self._refuse(HTTPStatus.FORBIDDEN)
        else:
            return name
        return None

    def _from_here(self) -> bool:
        """Whether a request was made by one of our pages or by the user, and by the name of this machine."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        if not _LOCAL_NAME.fullmatch(host) or (origin is not None and origin != f"http://{host}"):
            return False
        opened = self.headers.get("Sec-Fetch-Mode") == "navigate" and self.headers.get("Sec-Fetch-Dest") == "document"
        return opened or self.headers.get("Sec-Fetch-Site", "none") in ("same-origin", "none")

    def _call(self, function: Callable[[], Reply], *, head: bool = False) -> None:
        try:
            reply = function()
        except ValueError as error:
            text = json.dumps({"error": str(error)}).encode()
            self._send(text, _KINDS[".json"], status=HTTPStatus.UNPROCESSABLE_ENTITY)
            return
        self._send(reply.body, reply.kind, head=head)

    def _file(self, name: str, *, head: bool) -> None:
        """A file, or the range of it that is asked for."""
        path = self._path_of(name)
        if path is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        with path.open("rb") as file:
            about = os.fstat(file.fileno())
            part = wanted_range(self.headers.get("Range"), about.st_size)
            if part is None:
                self.send_response(HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE)
                self.send_header("Content-Range", f"bytes */{about.st_size}")
                self._finish(0)
                return
            ranged = "Range" in self.headers and part != range(about.st_size)
            self.send_response(HTTPStatus.PARTIAL_CONTENT if ranged else HTTPStatus.OK)
            if ranged:
                self.send_header("Content-Range", f"bytes {part.start}-{part.stop - 1}/{about.st_size}")
            self.send_header("Content-Type", _KINDS.get(path.suffix, "application/octet-stream"))
            self.send_header("Accept-Ranges", "bytes")
            self.send_header("Cache-Control", "private, max-age=3600")
            self.send_header("ETag", f'"{about.st_size:x}-{about.st_mtime_ns:x}"')
            self._finish(len(part))
            if not head:
                self._copy(file, part)

    def _path_of(self, name: str) -> Path | None:
        folder, _, rest = name.partition("/")
        parts = rest.split("/")
        if folder not in self._site.folders or "\\" in rest or "\0" in rest or not {"", ".", ".."}.isdisjoint(parts):
            return None
        try:
            path = inside_folder(self._site.folders[folder], rest, folder)
        except (OutsideError, OSError):
            return None
        return path if path.is_file() else None

    def _copy(self, file: BinaryIO, part: range) -> None:
        file.seek(part.start)
        left = len(part)
        while left and (piece := file.read(min(left, _PIECE_BYTES))):
            self.wfile.write(piece)
            left -= len(piece)

    def _send(self, body: bytes, kind: str, *, head: bool = False, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-cache")
        self._finish(len(body))
        if not head:
            self.wfile.write(body)

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        text = f"{status.value} {status.phrase}\n".encode()
        self._send(text, "text/plain", head=self.command == "HEAD", status=status)

    def _finish(self, length: int) -> None:
        self.send_header("Content-Length", str(length))
        more = " 'unsafe-eval'" if self._site.evaluates else ""
        self.send_header("Content-Security-Policy", _POLICY.format(more=more))
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()


def wanted_range(header: str | None, size: int) -> range | None:
    """The bytes of a file that a ``Range`` header asks for: all without one or with several, None beyond the end.

    >>> wanted_range("bytes=2-5", 10), wanted_range("bytes=-3", 10), wanted_range("bytes=20-", 10)
    (range(2, 6), range(7, 10), None)
    """
    found = re.fullmatch(r"bytes=(\d{0,19})-(\d{0,19})", (header or "").strip())
    if found is None or not any(found.groups()):
        return range(size)
    first, last = found.groups()
    if not first:
        return range(max(size - int(last), 0), size) if int(last) and size else None
    start, stop = int(first), min(int(last) + 1, size) if last else size
    return range(start, stop) if start < stop else None


def copy_site(site: Site, out: Path, *, copy: bool, always: Path) -> None:
    """Write a site as files for a static web server; folders become links, or copies: all, or those in ``always``."""
    out.mkdir(parents=True)
    for name, text in site.texts.items():
        (out / (name or "index.html")).write_bytes(text)
    for name, source in site.folders.items():
        if copy or source.is_relative_to(always):
            shutil.copytree(source, out / name)
        else:
            (out / name).symlink_to(source.resolve(), target_is_directory=True)
