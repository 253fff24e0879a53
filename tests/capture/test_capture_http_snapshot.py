"""Snapshots from real servers: good ones, slow ones and broken ones."""

import re
import threading
from contextlib import suppress
from itertools import islice
from typing import Any

import pytest
from capture_support import jpeg, number_of, picture
from http_snapshot_support import count_up, failure_of, numbers, source
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from support_brokers import raw_server
from support_http import HttpCamera, give, reset

from edgevision.capture import http_snapshot
from edgevision.capture.reader import Job, Limits, Reader
from edgevision.errors import CaptureError


def test_pictures_come_one_after_the_other_over_one_connection():
    with HttpCamera(count_up) as camera:
        assert numbers(source(camera.url("/cgi-bin/snap?ch=1")), 5) == [0, 1, 2, 3, 4]
        assert camera.connections == 1
        assert camera.requests[0]["path"] == "/cgi-bin/snap?ch=1"
        assert camera.requests[0]["accept-encoding"] == "identity"
        assert "authorization" not in camera.requests[0]


@pytest.mark.parametrize("protocol", ["HTTP/1.0", "HTTP/1.1"])
def test_a_server_that_ends_each_connection_is_no_fault(protocol):
    def answer(handler, number):
        handler.close_connection = True
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Connection", "close")
        handler.end_headers()
        handler.wfile.write(jpeg(picture(number)))

    with HttpCamera(answer, protocol=protocol) as camera:
        assert numbers(source(camera.url()), 3) == [0, 1, 2]
        assert camera.connections == 3


def test_a_kept_connection_that_the_server_has_ended_is_made_anew():
    def answer(handler, number):
        if number == 2:
            reset(handler)
        else:
            count_up(handler, number)

    with HttpCamera(answer) as camera:
        assert numbers(source(camera.url()), 3) == [0, 1, 3]


def test_chunks_are_put_together_and_a_missing_type_is_taken():
    content = jpeg(picture(9))

    def answer(handler, number):
        handler.send_response(200)
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        for at in range(0, len(content), 100):
            part = content[at : at + 100]
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
        handler.wfile.write(b"0\r\n\r\n")

    with HttpCamera(answer) as camera:
        assert numbers(source(camera.url()), 1) == [9]


def test_times_are_those_of_the_answer_or_the_servers_own():
    def answer(handler, number):
        give(handler, jpeg(picture(number)), Last_Modified="Tue, 14 Nov 2023 22:13:20 GMT")

    with HttpCamera(answer) as camera:
        made = source(camera.url(), time="last_modified")
        assert next(made.frames()).captured_at_ns == 1_700_000_000_000_000_000
        made.close()
        made = source(camera.url())
        assert next(made.frames()).captured_at_ns > 1_750_000_000_000_000_000
        made.close()


@pytest.mark.parametrize("how", ["etag", "modified", "bytes"])
@pytest.mark.parametrize("unchanged", ["fault", "normal"])
def test_a_picture_that_comes_again_is_no_frame_and_is_said(how, unchanged):
    headers: dict[str, Any] = {
        "etag": {"ETag": '"one"'},
        "modified": {"Last_Modified": "Tue, 14 Nov 2023 22:13:20 GMT"},
        "bytes": {},
    }[how]
    said: list[str] = []
    enough = threading.Event()

    def idle(fault):
        said.append(fault)
        if len(said) == 3:
            enough.set()
            made.close()

    def answer(handler, number):
        request = camera.requests[number]
        if (
            request.get("if-none-match") == '"one"'
            or request.get("if-modified-since") == "Tue, 14 Nov 2023 22:13:20 GMT"
        ):
            give(handler, b"", status=304, **headers)
        else:
            give(handler, jpeg(picture(1)), **headers)

    with HttpCamera(answer) as camera:
        made = source(camera.url(), idle=idle, unchanged=unchanged)
        assert [number_of(frame.image) for frame in made.frames()] == [1]
    assert enough.is_set()
    assert {bool(fault) for fault in said} == {unchanged == "fault"}


def bad_body(body: bytes, **headers: Any) -> Any:
    return lambda handler, number: give(handler, body, **headers)


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (bad_body(b"", status=401, kind=None), "asks who we are: set username and password_file (HTTP 401)"),
        (bad_body(b"", status=403), "does not let us have the picture"),
        (bad_body(b"", status=404), "knows no such path: check `url`"),
        (bad_body(b"", status=500), "is out of order (HTTP 500)"),
        (bad_body(b"", status=503), "lower `fps`"),
        (bad_body(b"", status=204), "gives no picture: check `url` (HTTP 204)"),
        (bad_body(b"<html>", kind="text/html; charset=utf-8"), "gives text/html, and no picture"),
        (bad_body(b"--x", kind="multipart/x-mixed-replace; boundary=x"), "is a stream (multipart/x-mixed-replace)"),
        (bad_body(b"x", Content_Encoding="gzip"), "'gzip'-encoded pictures"),
        (bad_body(jpeg(picture(1))[:300]), "10 pictures in a row cannot be used; the last: "),
        (bad_body(b"x" * 3000), "3000 bytes are above max_bytes (2000)"),
    ],
)
def test_what_is_no_picture_says_what_to_mend(answer, words):
    with HttpCamera(answer) as camera:
        text = failure_of(source(camera.url(), max_bytes=2000))
    assert words in text
    assert "127.0.0.1" in text


def test_a_damaged_picture_is_dropped_and_counted():
    def answer(handler, number):
        give(handler, jpeg(picture(number))[: 300 if number == 1 else None])

    with HttpCamera(answer) as camera:
        made = source(camera.url())
        frames = list(islice(made.frames(), 2))
        assert [number_of(frame.image) for frame in frames] == [0, 2]
        assert made.unreadable == 1
        made.close()


def test_pictures_none_of_which_can_be_decoded_are_counted_and_told_in_a_process_of_their_own():
    with HttpCamera(bad_body(jpeg(picture(1))[:300])) as camera:
        options = {"url": camera.url()}
        limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
        reader = Reader(Job(camera="a", type="http_snapshot", options=options, fps=50.0), limits, live=True)
        faults: list[str] = []
        made = reader.source(faults.append)
        assert "10 pictures in a row cannot be used" in failure_of(made)
        reader.close()
    assert made.unreadable == 10
    # At one a minute that is ten minutes, in which the reason is known.
    assert len(faults) == 9
    assert len(set(faults)) == 1
    assert "127.0.0.1" in faults[0]


def test_an_answer_without_end_is_cut_at_its_bound():
    def answer(handler, number):
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.end_headers()
        handler.close_connection = True
        while not camera.ending.is_set():
            handler.wfile.write(bytes(65536))

    with HttpCamera(answer) as camera:
        assert "longer than max_bytes (200000)" in failure_of(source(camera.url(), max_bytes=200_000))


def test_a_cut_off_answer_says_so():
    def answer(handler, number):
        handler.send_response(200)
        handler.send_header("Content-Type", "image/jpeg")
        handler.send_header("Content-Length", "5000")
        handler.end_headers()
        handler.wfile.write(bytes(700))
        reset(handler)

    with HttpCamera(answer) as camera:
        assert "the answer broke off after 700 bytes" in failure_of(source(camera.url()))


@pytest.mark.parametrize("where", ["accept", "header", "body"])
def test_a_server_that_drips_or_stalls_ends_at_the_deadline(where):
    """Every wait for a byte is short: only a deadline over all of them ends it."""
    begin = {
        "accept": b"",
        "header": b"HTTP/1.1 200 OK\r\nX-A: ",
        "body": b"HTTP/1.1 200 OK\r\nContent-Length: 9999\r\n\r\n",
    }
    over = threading.Event()

    def drip(connection):
        connection.sendall(begin[where])
        while where != "accept" and not over.wait(0.02):
            connection.sendall(b"x")
        over.wait(10)

    with raw_server(drip) as port:
        text = failure_of(source(f"http://127.0.0.1:{port}/", timeout_s=0.3))
        over.set()
    assert "no whole answer within 0.3 s (timeout_s)" in text


def test_close_ends_a_request_that_waits():
    asked, over = threading.Event(), threading.Event()

    def wait(connection):
        connection.recv(10)
        asked.set()
        over.wait(20)

    with raw_server(wait) as port:
        made = source(f"http://127.0.0.1:{port}/", timeout_s=60)
        ended = threading.Event()
        thread = threading.Thread(target=lambda: [list(made.frames()), ended.set()])  # type: ignore[func-returns-value]
        thread.start()
        assert asked.wait(10)
        made.close()
        assert ended.wait(10)
        over.set()
        thread.join(10)


@pytest.mark.parametrize(
    ("says", "words"),
    [(b"SSH-2.0-OpenSSH_9.2\r\n", "answers, but not in HTTP"), (b"", "check the address and the port|not in HTTP")],
)
def test_what_is_no_http_server_says_so(says, words):
    with raw_server(lambda connection: connection.sendall(says)) as port:
        assert re.search(words, failure_of(source(f"http://127.0.0.1:{port}/")))


def test_nobody_there_and_no_such_name():
    with raw_server(lambda connection: None) as port:
        pass
    assert "check the address and the port" in failure_of(source(f"http://127.0.0.1:{port}/"))
    assert "cannot be resolved" in failure_of(source("http://no-such-host.invalid/"))


def test_redirects_stay_on_the_host_and_end():
    def answer(handler, number):
        path = camera.requests[number]["path"]
        if path == "/snap.jpg":
            give(handler, b"", status=302, Location="/new/snap.jpg")
        elif path == "/loop":
            give(handler, b"", status=301, Location="/loop")
        elif path == "/away":
            give(handler, b"", status=307, Location="http://user:secret@elsewhere.example/x")
        elif path == "/file":
            give(handler, b"", status=307, Location="file:///etc/passwd")
        else:
            count_up(handler, 7)

    with HttpCamera(answer) as camera:
        assert numbers(source(camera.url()), 1) == [7]
        assert "redirects more than 3 times" in failure_of(source(camera.url("/loop")))
        away = failure_of(source(camera.url("/away")))
        assert "redirects to http://***@elsewhere.example/x, which is not followed" in away
        assert "file:///etc/passwd, which is not followed" in failure_of(source(camera.url("/file")))


_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: image/png\r\nContent-Length: 12\r\nETag: x\r\n\r\n\x89PNG\r\n\x1a\nabcd"
_REDIRECT = b"HTTP/1.1 302 F\r\nLocation: http://[x\r\nContent-Length: 0\r\n\r\n"


@given(
    st.binary(max_size=100)
    | st.tuples(st.sampled_from([_ANSWER, _REDIRECT]), st.integers(0, 110), st.binary(max_size=4)).map(
        lambda cut: cut[0][: cut[1]] + cut[2] + cut[0][cut[1] + len(cut[2]) :]
    )
)
@settings(max_examples=150)
def test_any_answer_is_one_of_our_errors(content):
    def answer(connection):
        connection.recv(1000)
        connection.sendall(content)

    with raw_server(answer) as port:
        made: Any = source(f"http://127.0.0.1:{port}/", fps=1000.0, timeout_s=2, idle=lambda _: made.close())
        with suppress(CaptureError):
            for _ in made.frames():
                made.close()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"url": "rtsp://cam/1"}, "streams are `type: opencv`"),
        ({"url": "http://u:p@ss:w@cam:x/"}, "percent-encoded"),
        ({"url": "http:///x"}, "give an http"),
        ({"url": "http://cam/a b"}, "percent-encode"),
        ({"url": "http://cam/\r\nX: y"}, "percent-encode|no valid host"),
        ({"url": "http://cam/ä"}, "percent-encode"),
        ({"url": "http://cam/", "ca_file": "x"}, "only for https"),
        ({"url": "http://cam/", "password": "x"}, "without username"),
        ({"url": "http://cam/", "username": "u", "password": "x", "password_file": "y"}, "keep one"),
        ({"url": "http://a:b@cam/", "username": "u", "password": "x"}, "keep one"),
    ],
)
def test_options_that_cannot_be_meant(options, words):
    with pytest.raises(ValidationError, match=words) as caught:
        http_snapshot.Options(**options)
    assert "p@ss" not in str(caught.value)


def test_it_is_read_in_a_process_of_its_own():
    with HttpCamera(lambda handler, number: count_up(handler, min(number, 2))) as camera:
        options = {"url": camera.url()}
        limits = Limits(frame_s=5, first_frame_s=20, memory_bytes=512 << 20)
        reader = Reader(Job(camera="a", type="http_snapshot", options=options, fps=50.0), limits, live=True)
        faults = []

        def idle(fault):
            faults.append(fault)
            made.close()

        made = reader.source(idle)
        assert [number_of(frame.image) for frame in made.frames()] == [0, 1, 2]
        reader.close()
    assert "the same picture comes again" in faults[0]
