"""Downloads from a real server that does everything wrong that servers do."""

import hashlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from model_server import ModelServer, Proxy
from support_brokers import Certificates

from edgevision.errors import ModelError, StateError
from edgevision.fetch import TRIES, Wanted, fetch
from edgevision.retry import Backoff

CONTENT = bytes(range(256)) * 4096  # 1 MiB
WANTED = Wanted(size=len(CONTENT), sha256=hashlib.sha256(CONTENT).hexdigest())


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch):
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def get(tmp_path):
    def call(source, *, wanted=WANTED, silence_s=0.3, **more):
        backoff = Backoff(first_s=0.001, max_s=0.01)
        fetch(
            source, wanted, tmp_path / "m.onnx", part=tmp_path / "m.part", backoff=backoff, silence_s=silence_s, **more
        )
        assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("m.")) == ["m.onnx"]
        return (tmp_path / "m.onnx").read_bytes()

    return call


def test_a_good_server_and_its_progress(get):
    seen: list[int] = []
    with ModelServer(CONTENT) as server:
        assert get(server.url(), on_progress=seen.append) == CONTENT
    assert seen == sorted(seen)
    assert seen[-1] == len(CONTENT)
    assert server.asked == [("/m.onnx", None)]


@pytest.mark.parametrize("fault", ["truncate", "stall"])
def test_what_breaks_off_goes_on_where_it_was(get, fault):
    with ModelServer(CONTENT, fault) as server:
        assert get(server.url()) == CONTENT
    assert [asked for _, asked in server.asked] == [None, f"bytes={len(CONTENT) // 2}-"]


@pytest.mark.parametrize("faults", [("503",), ("429", "500"), ("no length",), ("truncate", "no ranges"),
                                    ("truncate", "wrong range"), ("truncate", "416")])  # fmt: skip
def test_what_can_be_mended_by_another_try_is(get, faults):
    with ModelServer(CONTENT, *faults) as server:
        assert get(server.url()) == CONTENT


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("corrupt", "sha256: model.yaml says .* nothing of it is kept"),
        ("longer", "the server offers 1048580 bytes, and model.yaml says 1048576"),
        ("says less", "the server offers 1048476 bytes"),
        ("endless", "more than the 1048576 bytes"),
        ("gzip", "sends it as gzip"),
        ("404", "the server says 404"),
        ("403", "the server says 403"),
    ],
)
def test_what_is_wrong_is_refused_and_leaves_no_model(get, tmp_path, fault, words):
    with ModelServer(CONTENT, *[fault] * TRIES) as server, pytest.raises(ModelError, match=words) as caught:
        get(server.url())
    assert str(caught.value).startswith(server.url())
    assert not (tmp_path / "m.onnx").exists()
    part = tmp_path / "m.part"
    assert not part.exists() or part.stat().st_size <= len(CONTENT)


def test_a_corrupt_file_is_not_resumed_from(get, tmp_path):
    with ModelServer(CONTENT, "corrupt") as server:
        with pytest.raises(ModelError):
            get(server.url())
        assert get(server.url()) == CONTENT
    assert [asked for _, asked in server.asked] == [None, None]


def test_a_server_that_never_gets_anywhere_is_given_up(get):
    with (
        ModelServer(CONTENT, *["503"] * 20) as server,
        pytest.raises(ModelError, match=r"503 .*given up after 5 tries"),
    ):
        get(server.url())
    assert len(server.asked) == TRIES


def test_nobody_is_there(get):
    with ModelServer(CONTENT) as server:
        pass
    with pytest.raises(ModelError, match="given up after 5 tries"):
        get(server.url())


def test_a_new_version_on_the_server_is_taken_from_the_start(get):
    new = CONTENT[::-1]
    wanted = Wanted(size=len(new), sha256=hashlib.sha256(new).hexdigest())
    with ModelServer(CONTENT, *["truncate"], *["503"] * 20) as server:
        with pytest.raises(ModelError, match="524288 of 1048576 bytes are kept: pull again to go on"):
            get(server.url())
        server.faults.clear()
        # The same part for another file: its note is of another sha256, so nothing says that it fits, and the digest tells.
        server.content, server.etag = new, '"v2"'
        with pytest.raises(ModelError, match="the part that was kept may have been the reason: pull again"):
            get(server.url(), wanted=wanted)
        assert get(server.url(), wanted=wanted) == new


def test_if_range_keeps_two_versions_apart(get):
    with ModelServer(CONTENT, "truncate", *["503"] * 20) as server:
        with pytest.raises(ModelError):
            get(server.url())
        server.faults.clear()
        server.etag = '"v2"'  # the server answers 200 with all of it
        assert get(server.url()) == CONTENT
    assert server.asked[-1] == ("/m.onnx", "bytes=524288-")


def test_a_part_that_is_longer_than_the_file_is_thrown_away(get, tmp_path):
    (tmp_path / "m.part").write_bytes(CONTENT + b"x")
    with ModelServer(CONTENT) as server:
        assert get(server.url()) == CONTENT
    assert server.asked == [("/m.onnx", None)]


def test_redirects_are_followed_and_counted(get):
    with ModelServer(CONTENT) as there, ModelServer(CONTENT, "redirect") as server:
        server.location = there.url("elsewhere.onnx")
        assert get(server.url()) == CONTENT
        assert there.asked == [("/elsewhere.onnx", None)]
    with ModelServer(CONTENT, *["redirect"] * 50) as server:
        server.location = server.url("again")
        with pytest.raises(ModelError, match="redirects more than 5 times"):
            get(server.url(), wanted=Wanted(size=5, sha256="0" * 64))
        assert len(server.asked) == 6


@pytest.mark.parametrize("location", ["file:///etc/passwd", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_what_is_no_web_address_is_refused(get, location):
    with ModelServer(CONTENT, "redirect") as server:
        server.location = location
        with pytest.raises(ModelError, match="that is not followed"):
            get(server.url())


@pytest.mark.parametrize("location", ["http://[x/", f"http://{'a' * 70}.example/", "http://127.0.0.1:9/caf\u00e9 x"])
def test_a_redirect_to_what_is_no_address_is_refused_at_once(get, location):
    with ModelServer(CONTENT, "redirect") as server:
        server.location = location
        with pytest.raises(ModelError, match=r"127.0.0.1.*leads to 'http:.*that is no address"):
            get(server.url())
        assert len(server.asked) == 1


def test_tls_that_is_disturbed_is_a_line_that_broke_off(get, tmp_path, monkeypatch):
    """Not every failure of a line is a `ConnectionError`: TLS has its own, and so have routes that vanish."""
    (tmp_path / "ca").mkdir()
    certificates = Certificates(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    with ModelServer(CONTENT, "garble", tls=certificates.issue("server")) as server:
        assert get(server.url()) == CONTENT
        assert len(server.asked) == 2


def test_https_is_checked_and_never_left(get, tmp_path, monkeypatch):
    (tmp_path / "ca").mkdir()
    certificates = Certificates(tmp_path / "ca")
    tls = certificates.issue("server")
    with ModelServer(CONTENT, tls=tls) as server:
        with pytest.raises(ModelError, match="certificate verify failed"):
            get(server.url())
        monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
        assert get(server.url()) == CONTENT
        (tmp_path / "m.onnx").unlink()
        with ModelServer(CONTENT) as plain:
            server.faults, server.location = ["redirect"], plain.url()
            with pytest.raises(ModelError, match=r"leads from https to http.*not followed"):
                get(server.url())
            assert plain.asked == []


def test_through_a_proxy(get, monkeypatch):
    with ModelServer(CONTENT) as server, Proxy() as proxy:
        monkeypatch.setenv("http_proxy", proxy.url)
        monkeypatch.setenv("no_proxy", "")
        assert get(server.url()) == CONTENT
        assert proxy.asked == [server.url()]


def test_https_through_a_proxy_is_a_tunnel_that_is_checked_at_its_end(get, tmp_path, monkeypatch):
    (tmp_path / "ca").mkdir()
    certificates = Certificates(tmp_path / "ca")
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates.ca))
    monkeypatch.setenv("no_proxy", "")
    with ModelServer(CONTENT, "truncate", tls=certificates.issue("server")) as server, Proxy() as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        assert get(server.url()) == CONTENT
        assert proxy.asked == [f"127.0.0.1:{server.port}"] * 2


def test_from_a_folder_and_a_file_address(get, tmp_path):
    there = tmp_path / "a folder" / "m.onnx"
    there.parent.mkdir()
    there.write_bytes(CONTENT)
    assert get(str(there)) == CONTENT
    (tmp_path / "m.onnx").unlink()
    assert get(there.as_uri()) == CONTENT
    for source, words in (
        (str(tmp_path / "none"), "cannot be read: No such file"),
        ("file://server/share/m.onnx", "names no host"),
    ):
        with pytest.raises(ModelError, match=words):
            get(source)
    there.write_bytes(CONTENT[:-1])
    with pytest.raises(ModelError, match=r"1048575 bytes arrived, and model.yaml says 1048576"):
        get(str(there))


def test_a_part_that_is_a_link_is_not_written_through(get, tmp_path):
    victim = tmp_path / "victim"
    victim.write_bytes(b"mine")
    (tmp_path / "m.part").symlink_to(victim)
    with ModelServer(CONTENT) as server, pytest.raises(StateError, match="cannot be written"):
        get(server.url())
    assert victim.read_bytes() == b"mine"


def test_a_full_disk_is_said_and_what_arrived_is_kept(get, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1600k", "tmpfs", str(disk)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"needs the right to mount a tmpfs: {done.stderr.strip()}")
    try:

        def call(**more):
            fetch(server.url(), WANTED, disk / "m.onnx", part=disk / "p.part", backoff=Backoff(first_s=0.001), **more)

        with ModelServer(CONTENT) as server:
            filler = disk / "filler"
            filler.write_bytes(bytes(1 << 20))
            with pytest.raises(StateError, match=r"the disk is full: m.onnx needs 1048576 bytes; make room"):
                call()
            assert server.asked == []  # seen before a byte was asked for
            filler.unlink()

            def fills_up(arrived):
                if arrived and not filler.exists():
                    filler.write_bytes(bytes(os.statvfs(disk).f_bavail * 4096))

            with pytest.raises(StateError, match="the disk is full"):
                call(on_progress=fills_up)
            kept = (disk / "p.part").stat().st_size
            assert 0 < kept < len(CONTENT)
            filler.unlink()
            call()
            assert (disk / "m.onnx").read_bytes() == CONTENT
            assert server.asked[-1] == ("/m.onnx", f"bytes={kept}-")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_ctrl_c_keeps_the_part_and_the_next_call_resumes(get, tmp_path):
    script = (
        "import sys; from pathlib import Path; from edgevision.fetch import *\n"
        "fetch(sys.argv[1], Wanted(size=int(sys.argv[3]), sha256=sys.argv[4]), Path(sys.argv[2], 'm.onnx'), "
        "part=Path(sys.argv[2], 'm.part'), on_progress=lambda done: done and print(done, flush=True))"
    )
    with ModelServer(CONTENT, "stall") as server:
        arguments = [server.url(), str(tmp_path), str(len(CONTENT)), WANTED.sha256]
        process = subprocess.Popen(
            [sys.executable, "-c", script, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert server.halfway.wait(30)
        assert process.stdout is not None
        assert process.stdout.readline()  # something has arrived
        part = Path(tmp_path, "m.part")
        with pytest.raises(StateError, match="another process is pulling"):
            get(server.url())
        process.send_signal(signal.SIGINT)
        assert b"KeyboardInterrupt" in process.communicate(timeout=30)[1]
        kept = part.stat().st_size
        assert 0 < kept <= len(CONTENT) // 2
        assert get(server.url()) == CONTENT
        assert server.asked[-1] == ("/m.onnx", f"bytes={kept}-")
