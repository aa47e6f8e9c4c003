"""Fetching and unpacking the archive, from a server on this machine."""

import hashlib
import io
import socket
import tarfile
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from tasks.babi.download import ADDRESS, ARCHIVE, SHA256, download_archive
from tasks.babi.reader import find_file, read_stories

STORY = b"1 Mary went to the garden.\n2 Where is Mary? \tgarden\t1\n"
ENGLISH = {
    "tasks_1-20_v1-2/en/qa1_single-supporting-fact_train.txt": STORY,
    "tasks_1-20_v1-2/en-10k/qa1_single-supporting-fact_train.txt": STORY * 2,
    "tasks_1-20_v1-2/LICENSE.txt": b"CC BY",
}
OTHERS = {"tasks_1-20_v1-2/hn/qa1_single-supporting-fact_train.txt": STORY, "notes.txt": b"?"}


def pack(files, *more):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member)
    return buffer.getvalue()


def checksum(data):
    return hashlib.sha256(data).hexdigest()


class Server(HTTPServer):
    """Serves one file.

    Attributes:
        data: its content.
        breaks_after: how many bytes of each answer come through; all if None.
        takes_ranges: whether it can begin in the middle.
        status: what it answers instead, if not 200.
        asked: the ranges that were asked for.
    """

    def __init__(self, data):
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = data
        self.breaks_after = None
        self.takes_ranges = True
        self.status = 200
        self.asked = []

    @property
    def address(self):
        return f"http://127.0.0.1:{self.server_address[1]}/archive.tar.gz"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.asked.append(self.headers.get("Range"))
        start = 0
        if server.takes_ranges and self.headers.get("Range"):
            start = int(self.headers["Range"].removeprefix("bytes=").rstrip("-"))
        if server.status != 200:
            self.send_error(server.status)
        elif start and start >= len(server.data):
            self.send_error(416)
        else:
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(server.data) - start))
            self.end_headers()
            self.wfile.write(server.data[start:][: server.breaks_after])

    def log_message(self, *arguments):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    serving = Server(pack(ENGLISH | OTHERS))
    thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield serving
    serving.shutdown()
    thread.join()
    serving.server_close()


def get(server, folder):
    return download_archive(folder, server.address, checksum(server.data))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_english_files_are_unpacked_and_the_archive_is_kept(server, tmp_path):
    folder = tmp_path / "new" / "data"
    assert get(server, folder) == folder / "tasks_1-20_v1-2"
    assert contents(folder) == ENGLISH | {ARCHIVE: server.data}
    assert [len(read_stories(find_file(folder, 1, size, "train"), 1)) for size in ("1k", "10k")] == [1, 2]


def test_what_is_there_is_neither_fetched_nor_overwritten(server, tmp_path):
    get(server, tmp_path)
    mine, gone = tmp_path / "tasks_1-20_v1-2/LICENSE.txt", tmp_path / "tasks_1-20_v1-2/en"
    mine.write_bytes(b"mine")
    for path in gone.iterdir():
        path.unlink()
    get(server, tmp_path)
    assert len(server.asked) == 1
    assert contents(tmp_path) == ENGLISH | {ARCHIVE: server.data, "tasks_1-20_v1-2/LICENSE.txt": b"mine"}


def test_an_archive_put_there_by_hand_will_do(server, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(server.data)
    get(server, tmp_path)
    assert server.asked == [] and contents(tmp_path) == ENGLISH | {ARCHIVE: server.data}


def test_a_transfer_that_breaks_off_goes_on_where_it_stopped(server, tmp_path):
    server.breaks_after = len(server.data) // 4
    with pytest.raises(OSError, match="the connection broke off"):
        get(server, tmp_path)
    quarter = server.breaks_after
    assert server.asked == [None, f"bytes={quarter}-", f"bytes={2 * quarter}-"]
    assert contents(tmp_path) == {f"{ARCHIVE}.part": server.data[: 3 * quarter]}
    get(server, tmp_path)
    assert server.asked[3] == f"bytes={3 * quarter}-"
    assert contents(tmp_path) == ENGLISH | {ARCHIVE: server.data}


def test_a_server_that_cannot_go_on_begins_anew(server, tmp_path):
    (tmp_path / f"{ARCHIVE}.part").write_bytes(server.data[:100])
    server.takes_ranges = False
    get(server, tmp_path)
    assert server.asked == ["bytes=100-"] and contents(tmp_path) == ENGLISH | {ARCHIVE: server.data}


def test_a_transfer_that_was_whole_is_not_repeated(server, tmp_path):
    (tmp_path / f"{ARCHIVE}.part").write_bytes(server.data)
    get(server, tmp_path)
    assert contents(tmp_path) == ENGLISH | {ARCHIVE: server.data}


@pytest.mark.parametrize("left_over", [b"", b"something else"], ids=["from scratch", "going on"])
def test_another_archive_is_refused_and_removed(server, tmp_path, left_over):
    if left_over:
        (tmp_path / f"{ARCHIVE}.part").write_bytes(left_over)
    with pytest.raises(ValueError, match=r"has the SHA-256 checksum [0-9a-f]{64}, but the archive has 0{64}; it was"):
        download_archive(tmp_path, server.address, "0" * 64)
    assert contents(tmp_path) == {}


def test_another_archive_of_the_users_own_is_left_alone(server, tmp_path):
    (tmp_path / ARCHIVE).write_bytes(b"mine")
    with pytest.raises(ValueError, match="remove it, and it is fetched again"):
        get(server, tmp_path)
    assert server.asked == [] and contents(tmp_path) == {ARCHIVE: b"mine"}


def test_offline_it_says_where_the_files_go(tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and nobody listens
        address = f"http://127.0.0.1:{taken.getsockname()[1]}/archive.tar.gz"
        with pytest.raises(OSError) as caught:
            download_archive(tmp_path, address)
    message = str(caught.value)
    assert message.startswith(f"{address} cannot be fetched (") and "refused" in message
    assert message.endswith(
        f"get {ARCHIVE} by other means and put it into {tmp_path}, or its tasks_1-20_v1-2 unpacked."
    )
    assert contents(tmp_path) == {}


@pytest.mark.parametrize("status, times", [(404, 1), (503, 3)])
def test_only_what_may_pass_is_tried_again(server, tmp_path, status, times):
    server.status = status
    with pytest.raises(OSError, match="cannot be fetched"):
        get(server, tmp_path)
    assert len(server.asked) == times and contents(tmp_path) == {}


def link(kind, target):
    member = tarfile.TarInfo("tasks_1-20_v1-2/en/link")
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "archive",
    [
        pack(ENGLISH | {"../evil.txt": b"!"}),
        pack(ENGLISH | {"tasks_1-20_v1-2/en/../../../evil.txt": b"!"}),
        pack(ENGLISH | {"/tmp/evil.txt": b"!"}),
        pack(ENGLISH | {"tasks_1-20_v1-2\\..\\evil.txt": b"!"}),
        pack(ENGLISH, link(tarfile.SYMTYPE, "/etc/passwd")),
        pack(ENGLISH, link(tarfile.LNKTYPE, "../../evil.txt")),
        pack(ENGLISH, link(tarfile.FIFOTYPE, "")),
    ],
    ids=["above", "above by a detour", "absolute", "backslashes", "symbolic link", "hard link", "pipe"],
)
def test_an_archive_that_reaches_out_is_refused_whole(server, tmp_path, archive):
    server.data = archive
    folder = tmp_path / "in" / "side"
    with pytest.raises(ValueError, match="which is no plain file or folder within it"):
        get(server, folder)
    assert contents(tmp_path) == {f"in/side/{ARCHIVE}": archive}
    assert not (folder / "tasks_1-20_v1-2").exists()


def test_an_archive_of_something_else_is_refused(server, tmp_path):
    server.data = pack({"README.txt": b"hello"})
    with pytest.raises(ValueError, match="holds no tasks_1-20_v1-2/en or en-10k"):
        get(server, tmp_path)


def test_the_official_address_is_the_default():
    assert download_archive.__defaults__ == (ADDRESS, SHA256)
    assert ADDRESS.endswith(f"/{ARCHIVE}") and len(SHA256) == 64
