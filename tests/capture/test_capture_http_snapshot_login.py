"""Snapshots from servers that ask who we are, and from servers that say who they are: basic, digest, TLS."""

import hashlib
from typing import Any
from urllib.request import parse_http_list, parse_keqv_list

import pytest
from http_snapshot_support import count_up, failure_of, numbers, source
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from support_brokers import Certificates
from support_http import HttpCamera, give

from edgevision.capture import http_snapshot
from edgevision.capture._http_auth import read_challenge
from edgevision.capture._login import Login


class Guard:
    """A server's side of basic and digest, written from the RFCs and not from our client."""

    def __init__(self, scheme: str, *, algorithm: str = "MD5", qop: bool = True, nonce_lasts: int = 1000) -> None:
        self.scheme, self.algorithm, self.qop = scheme, algorithm, qop
        self.nonces = 0
        self.used = 0
        self.refused = 0
        self._nonce_lasts = nonce_lasts
        self._nonce = ""

    def __call__(self, handler: Any, number: int) -> None:
        given = handler.headers.get("Authorization", "")
        basic = "Basic bGluZTM6cyUzQXPDpA=="  # line3:s%3Asä
        if given == basic if self.scheme == "basic" else self._digest(handler, given):
            count_up(handler, number)
            return
        self.refused += 1
        if self.scheme == "basic":
            asks = ['Basic realm="cam", charset="UTF-8"']
        else:
            self.nonces += 1
            self._nonce, self.used = f"nonce-{self.nonces}", 0
            qop = ', qop="auth,auth-int"' if self.qop else ""
            algorithm = f", algorithm={self.algorithm}" if self.algorithm else ""
            asks = [
                'Basic realm="cam"',
                f'Digest realm="a, \\"b\\"", nonce="{self._nonce}", opaque="o"{qop}{algorithm}',
            ]
        handler.send_response(401)
        for ask in asks:
            handler.send_header("WWW-Authenticate", ask)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    def _digest(self, handler: Any, given: str) -> bool:
        if not given.startswith("Digest "):
            return False
        fields = parse_keqv_list(parse_http_list(given[7:]))
        self.used += 1
        if fields["nonce"] != self._nonce or self.used > self._nonce_lasts:
            return False

        def hashed(text):
            return hashlib.new("sha256" if self.algorithm == "SHA-256" else "md5", text.encode()).hexdigest()

        secret = hashed(f'{fields["username"]}:{chr(97)}, "b":s%3Asä')
        request = hashed(f"GET:{fields['uri']}")
        between = f"{fields['nonce']}"
        if self.qop:
            assert fields["nc"] == f"{self.used:08x}"
            between += f":{fields['nc']}:{fields['cnonce']}:{fields['qop']}"
        assert fields["opaque"] == "o"
        right = hashed(f"{secret}:{between}:{request}")
        return bool(fields["uri"] == handler.path and fields["response"] == right)


@pytest.mark.parametrize(
    "guard",
    [
        Guard("basic"),
        Guard("digest"),
        Guard("digest", algorithm="SHA-256"),
        Guard("digest", algorithm="", qop=False),
        Guard("digest", nonce_lasts=2),
    ],
)
def test_a_login_by_file_or_in_the_address(guard, tmp_path, caplog):
    secret = tmp_path / "password"
    secret.write_text("s%3Asä\n")
    with HttpCamera(guard) as camera:
        assert len(numbers(source(camera.url(), username="line3", password_file=secret), 4)) == 4
        assert guard.refused == (2 if guard._nonce_lasts == 2 else 1), "a challenge is kept from picture to picture"
        made = source(camera.url(login="line3:s%253As%C3%A4"))
        assert len(numbers(made, 1)) == 1
        secret.write_text("wrong")
        text = failure_of(source(camera.url(), username="line3", password_file=secret))
    assert "refuses the user name or password" in text
    assert ("in the clear" in caplog.text) == (guard.scheme == "basic")
    assert "s%" not in text + caplog.text + repr(made._options)


def test_the_examples_of_rfc_7616():
    login = Login(username="Mufasa", password="Circle of Life")
    nonce = "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v"
    wanted = {
        "MD5": "8ca523f5e9506fed4657c9700eebdbec",
        "SHA-256": "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
    }
    asks = [
        f'Digest realm="http-auth@example.org", qop="auth, auth-int", algorithm={name}, nonce="{nonce}", '
        'opaque="FQhe/qaU925kfnzjCev0ciny7QMkPqMAFRtzCUYo5tdS"'
        for name in wanted
    ]
    with pytest.MonkeyPatch.context() as patch:
        own = "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ"
        patch.setattr("secrets.token_hex", lambda _: own)
        for name, ask in zip(wanted, asks, strict=True):
            challenge = read_challenge([ask])
            assert challenge is not None
            answer = challenge.answer(login, method="GET", target="/dir/index.html")
            assert f'response="{wanted[name]}"' in answer
            assert "qop=auth, nc=00000001" in answer
    best = read_challenge(['Basic realm="x"', *asks])
    assert best is not None
    assert best.algorithm == "SHA-256"


@pytest.mark.parametrize(
    "ask", ["", "Digest", "Digest realm", "Negotiate", 'Digest nonce="x", algorithm=ROT13', "Digest nonce=", "x" * 99]
)
def test_a_way_to_sign_in_that_is_not_known_says_so(ask):
    def answer(handler, number):
        give(handler, b"", status=401, WWW_Authenticate=str(ask))

    with HttpCamera(answer) as camera:
        text = failure_of(source(camera.url(), username="u", password="p"))
    assert "neither basic nor digest" in text


def test_a_user_name_of_any_letters():
    with HttpCamera(
        lambda handler, number: give(handler, b"", status=401, WWW_Authenticate='Digest nonce="n"')
    ) as camera:
        assert "refuses the user name" in failure_of(source(camera.url(), username="Łukasz", password="p"))
        assert "holds what HTTP cannot carry" in failure_of(source(camera.url(login="a%0d%0aX:b")))
    with pytest.raises(ValidationError):
        http_snapshot.Options(url="http://cam/", username="a\r\nX: y")


@given(st.text(max_size=200) | st.text('Digestnonce=",qop ', max_size=80))
def test_any_challenge_is_answered_or_refused(text):
    challenge = read_challenge([text, f"Digest {text}"])
    if challenge is not None:
        challenge.answer(Login(username="u", password="p"), method="GET", target="/")


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    return Certificates(tmp_path_factory.mktemp("certificates"))


def test_https_is_checked_and_says_what_to_mend(certificates, tmp_path):
    with HttpCamera(count_up, tls=certificates.issue("camera")) as camera:
        assert numbers(source(camera.url(), ca_file=certificates.ca), 3) == [0, 1, 2]
        assert camera.connections == 1
        untrusted = failure_of(source(camera.url()))
        assert "its certificate is not trusted" in untrusted
        assert "set ca_file" in untrusted
        assert "not trusted" in failure_of(source(camera.url(), ca_file=certificates.other_ca))
        assert "No such file" in failure_of(source(camera.url(), ca_file=tmp_path / "none.pem"))
        (tmp_path / "empty.pem").write_text("")
        assert "holds no certificate" in failure_of(source(camera.url(), ca_file=tmp_path / "empty.pem"))
        assert "127.0.0.1" in failure_of(source(camera.url().replace("https", "http")))
    with HttpCamera(count_up, tls=certificates.issue("named", names="DNS:cam.example")) as camera:
        assert "server_name" in failure_of(source(camera.url(), ca_file=certificates.ca))
        assert numbers(source(camera.url(), ca_file=certificates.ca, server_name="cam.example"), 1) == [0]
    with HttpCamera(count_up) as camera:
        plain = failure_of(source(camera.url().replace("http", "https")))
        assert "is it an https port?" in plain
