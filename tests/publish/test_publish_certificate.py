"""The dates of a certificate, as OpenSSL writes them."""

import base64
import subprocess
from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support_brokers import Certificates

from edgevision.publish._certificate import certificate_problem, validity


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    file, _ = Certificates(folder).issue("device")
    return file


def as_ns(moment):
    return int(moment.timestamp()) * 10**9


def test_the_dates_are_those_that_openssl_reads(certificate):
    done = subprocess.run(
        ["openssl", "x509", "-in", certificate, "-noout", "-startdate", "-enddate"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = [
        datetime.strptime(line.partition("=")[2], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=timezone.utc)
        for line in done.stdout.splitlines()
    ]
    assert list(validity(certificate.read_bytes())) == told


def test_dates_beyond_2049_are_read_too(tmp_path):
    key, cert = tmp_path / "k", tmp_path / "c"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj",
         "/CN=x", "-days", "36500", "-keyout", key, "-out", cert], check=True, capture_output=True,
    )  # fmt: skip
    begins, ends = validity(cert.read_bytes())
    assert ends - begins == timedelta(days=36500)


def test_what_is_wrong_is_told_in_words(certificate, tmp_path):
    begins, ends = validity(certificate.read_bytes())
    day = timedelta(days=1)
    assert certificate_problem(certificate, as_ns(begins + day / 24)) == ""
    assert "has expired on" in certificate_problem(certificate, as_ns(ends + day))
    assert "this machine's clock is probably wrong" in certificate_problem(certificate, as_ns(begins - day))
    assert certificate_problem(certificate, as_ns(ends - 3.5 * day)) == ""
    assert "in 3 days: renew it" in certificate_problem(certificate, as_ns(ends - 3.5 * day), days=30)
    assert certificate_problem(None, 0) == ""
    assert certificate_problem(tmp_path / "none", 0) == "", "who makes a connection of it says so"


@given(st.binary(max_size=200))
def test_nonsense_is_a_value_error_and_nothing_else(content):
    body = base64.b64encode(content)
    with pytest.raises(ValueError, match=r".*"):
        validity(b"-----BEGIN CERTIFICATE-----\n" + body + b"\n-----END CERTIFICATE-----\n")


def test_a_certificate_that_is_cut_off_or_damaged_is_one_too(certificate):
    whole = certificate.read_bytes()
    der = base64.b64decode(whole.partition(b"-----\n")[2].partition(b"\n-----END")[0])
    for length in range(0, 60, 7):
        with pytest.raises(ValueError, match=r".*"):
            validity(b"-----BEGIN CERTIFICATE-----\n" + base64.b64encode(der[:length]) + b"\n-----END CERTIFICATE-----")
    with pytest.raises(ValueError, match="holds no certificate"):
        validity(b"")
