"""The server reads what it was told to serve, for whoever has the token, and nothing else for anybody."""

import http.client
import json
import socket
from concurrent.futures import ThreadPoolExecutor

import pytest

from tomostain.viewing.server import Reply, Site, serve, wanted_range

BYTES = bytes(range(256)) * 40


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    home = tmp_path_factory.mktemp("site")
    store = home / "store"
    (store / "c" / "0").mkdir(parents=True)
    (store / "c" / "0" / "shard").write_bytes(BYTES)
    (home / "secret").write_text("secret")
    (store / "link").symlink_to(home / "secret")
    (store / "folder").symlink_to(home)
    site = Site(
        texts={"": b"<p>page", "own.js": b"1"},
        folders={"data": store},
        answers={"twice": lambda query: Reply.of_json(2 * int(query["n"]))},
        actions={"sum": lambda asked: Reply.of_json(sum(asked["of"]))},
    )
    with serve(site) as running:
        yield running


def ask(running, path, method="GET", *, whole=False, body=None, **headers):
    """Status, headers and body of one request; the path is taken as it stands."""
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=30)
    target = path if whole else f"/v/{running.token}/{path}"
    connection.request(method, target, body=body, headers={k.replace("_", "-"): v for k, v in headers.items()})
    reply = connection.getresponse()
    read = reply.read()
    connection.close()
    return reply.status, reply.headers, read


def test_a_file_is_read_whole_in_part_and_from_its_end(running):
    assert ask(running, "data/c/0/shard")[::2] == (200, BYTES)
    status, headers, part = ask(running, "data/c/0/shard", Range="bytes=100-199")
    assert (status, part, headers["Content-Range"]) == (206, BYTES[100:200], f"bytes 100-199/{len(BYTES)}")
    assert ask(running, "data/c/0/shard", Range="bytes=-7")[2] == BYTES[-7:]
    assert ask(running, "data/c/0/shard", Range=f"bytes={len(BYTES) - 2}-")[2] == BYTES[-2:]
    assert ask(running, "data/c/0/shard", Range=f"bytes={len(BYTES)}-")[0] == 416


def test_head_says_how_long_a_file_is_and_sends_nothing(running):
    status, headers, body = ask(running, "data/c/0/shard", "HEAD")
    assert (status, headers["Content-Length"], headers["Accept-Ranges"], body) == (200, str(len(BYTES)), "bytes", b"")


@pytest.mark.parametrize("header", ["bytes=5-2", "bytes=-0"])
def test_a_range_that_holds_nothing_cannot_be_had(header):
    assert wanted_range(header, 10) is None


def test_pages_and_functions_answer(running):
    assert ask(running, "")[::2] == (200, b"<p>page")
    assert ask(running, "own.js")[1]["Content-Type"].startswith("text/javascript")
    assert json.loads(ask(running, "twice?n=21")[2]) == 42
    assert json.loads(ask(running, "sum", "POST", body=b'{"of": [1, 2]}')[2]) == 3
    status, _, body = ask(running, "twice?n=many")
    assert status == 422
    assert "many" in json.loads(body)["error"]


@pytest.mark.parametrize(
    "path",
    [
        "data/../../secret",
        "data/../../../../../../etc/passwd",
        "data/%2e%2e/%2e%2e/secret",
        "data/..%2f..%2fsecret",
        "data//etc/passwd",
        "data/link",
        "data/folder/secret",
        "data/c",
        "data/",
        "data",
        "nothing",
        "data/c/0/shard%00.js",
    ],
)
def test_nothing_outside_a_store_is_read(running, path):
    status, _, body = ask(running, path)
    assert status == 404
    assert b"secret" not in body
    assert b"root:" not in body


def test_without_the_token_nothing_is_there(running):
    for path in (
        "/",
        "/v/",
        "/v/wrong/",
        f"/v/{running.token[:-1]}/data/c/0/shard",
        f"/{running.token}/",
        "/etc/passwd",
    ):
        assert ask(running, path, whole=True)[0] == 404, path


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Host": "evil.example"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "no-cors"},
        {"Sec_Fetch_Site": "same-site", "Sec_Fetch_Mode": "cors"},
        {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "iframe"},
    ],
)
def test_what_another_page_asks_for_is_refused(running, headers):
    assert ask(running, "data/c/0/shard", **headers)[0] == 403
    assert ask(running, "sum", "POST", body=b'{"of": [1]}', **headers)[0] == 403


def test_its_own_page_and_a_link_that_is_followed_are_answered(running):
    own = {"Origin": f"http://127.0.0.1:{running.port}", "Sec_Fetch_Site": "same-origin"}
    assert ask(running, "data/c/0/shard", **own)[0] == 200
    followed = {"Sec_Fetch_Site": "cross-site", "Sec_Fetch_Mode": "navigate", "Sec_Fetch_Dest": "document"}
    assert ask(running, "", **followed)[0] == 200
    assert "frame-ancestors 'none'" in ask(running, "")[1]["Content-Security-Policy"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_nothing_can_be_written(running, method):
    assert ask(running, "data/c/0/shard", method, body=b"x")[0] == 501
    assert ask(running, "data/c/0/shard", "POST", body=b"{}")[0] == 404


def test_it_listens_on_this_machine_only(running):
    with socket.socket() as other:
        other.settimeout(5)
        with pytest.raises(OSError, match=r"refused|timed out|unreachable"):
            other.connect(("127.0.0.2", running.port))


def test_two_hundred_requests_at_once_are_all_answered(running):
    with ThreadPoolExecutor(200) as many:
        replies = list(many.map(lambda i: ask(running, "data/c/0/shard", Range=f"bytes={i}-{i}")[2], range(200)))
    assert replies == [BYTES[i : i + 1] for i in range(200)]


def test_over_ssh_the_line_that_brings_the_page_home_is_printed(running, monkeypatch):
    monkeypatch.delenv("SSH_CONNECTION", raising=False)
    assert running.ssh_line is None
    monkeypatch.setenv("SSH_CONNECTION", "10.0.0.9 50000 10.0.0.1 22")
    monkeypatch.setenv("LOGNAME", "ann")
    assert running.ssh_line == f"ssh -N -L {running.port}:127.0.0.1:{running.port} ann@10.0.0.1"
