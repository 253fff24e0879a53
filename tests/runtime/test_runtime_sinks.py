"""What the daemon tells of its sinks."""

from support_brokers import Certificates, HandClock

from edgevision.publish._certificate import validity
from edgevision.publish.base import SinkContext
from edgevision.publish.memory import Options as MemoryOptions
from edgevision.publish.memory import create as create_memory
from edgevision.publish.mqtt import Options
from edgevision.runtime import sinks
from edgevision.runtime.sinks import CertificateAlarm, sink_troubles

DAY_S = 86_400


class Calendar(HandClock):
    """A wall clock beside the monotonic one."""

    wall_ns = 0

    def time_ns(self):
        return self.wall_ns


def test_a_certificate_that_ends_is_an_alarm_days_before_until_it_is_renewed(tmp_path, monkeypatch):
    monkeypatch.setattr(sinks, "EXPIRES_DAYS", 10)  # the test's own certificates are made for 30
    certificates = Certificates(tmp_path)
    cert, key = certificates.issue("device")
    tls = {"ca_file": certificates.ca, "cert_file": cert, "key_file": key}
    options = Options.model_validate({"host": "h", "tls": tls})
    clock = Calendar()
    end_s = int(validity(cert.read_bytes())[1].timestamp())
    clock.wall_ns = (end_s - 20 * DAY_S) * 10**9
    alarm = CertificateAlarm(clock)
    assert alarm.look(options) == ()
    clock.wall_ns = (end_s - 5 * DAY_S) * 10**9
    assert alarm.look(options) == (), "it is looked at once an hour"
    clock.now_ns += 3601 * 10**9
    (told,) = alarm.look(options)
    assert told.startswith(f"mqtt: our certificate {cert} expires on ")
    assert "in 5 days: renew it" in told
    clock.wall_ns = (end_s - 25 * DAY_S) * 10**9
    clock.now_ns += 3601 * 10**9
    assert alarm.look(options) == ()
    assert CertificateAlarm(clock).look(None) == CertificateAlarm(clock).look(Options(host="h")) == ()


def test_a_sink_that_delivers_nothing_is_named_with_the_reason():
    sink = create_memory(MemoryOptions(), SinkContext(device="d"))
    assert sink_troubles({"kept": sink}) == []
    sink.close()
    (told,) = sink_troubles({"kept": sink})
    assert told.startswith("kept: ")
