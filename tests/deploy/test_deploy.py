"""The broker that deploy/ describes, run for real with the certificates its script makes; the rest is held to its word."""

import os
import shutil
import signal
import socket
import subprocess
from pathlib import Path

import pytest
import yaml
from support_brokers import HOST, Listener, free_port, wait_until
from support_daemon import ServiceManager

import edgevision
from edgevision.runtime.systemd import STOP_MARGIN_S

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PHOTOS = Path(edgevision.__file__).parent / "data" / "photos"


def openssl(*arguments, **more):
    return subprocess.run(["openssl", *map(str, arguments)], check=True, capture_output=True, text=True, **more)


def certificates(folder, *arguments, cwd=None):
    command = [DEPLOY / "certificates", folder, *arguments]
    return subprocess.run(command, check=False, capture_output=True, text=True, cwd=cwd)


@pytest.fixture(scope="module")
def secrets(tmp_path_factory, mosquitto):
    folder = tmp_path_factory.mktemp("secrets")
    for arguments in (("broker", "broker,localhost,127.0.0.1"), ("device", "box1", "box2", "dashboard")):
        done = certificates(folder, *arguments)
        assert done.returncode == 0, done.stderr
    return folder


def member(secrets, name):
    own = secrets / "devices" / name
    return {"ca": own / "ca.crt", "cert": own / "device.crt", "key": own / "device.key", "password": own / "password"}


class DeployedBroker:
    """mosquitto with deploy/mosquitto/mosquitto.conf, whose paths and port are this test's."""

    def __init__(self, binary, folder, secrets):
        self.port = free_port()
        (folder / "data").mkdir()
        text = (DEPLOY / "mosquitto" / "mosquitto.conf").read_text()
        text = text.replace("listener 8883", f"listener {self.port} {HOST}")
        text = text.replace("/mosquitto/secrets", f"{secrets}/broker").replace("/mosquitto/data", f"{folder}/data")
        text = text.replace("/mosquitto/config/acl", str(DEPLOY / "mosquitto" / "acl"))
        assert "/mosquitto/secrets" not in text
        self._config = folder / "mosquitto.conf"
        self._config.write_text(("user root\n" if os.geteuid() == 0 else "") + text)
        self._log = folder / "mosquitto.log"
        self._binary = binary

    def start(self):
        with self._log.open("a") as log:
            self._process = subprocess.Popen([self._binary, "-c", self._config], stderr=log)
        try:
            wait_until(self._listens, "the broker")
        except AssertionError:
            self.cut_power()
            raise

    def _listens(self):
        assert self._process.poll() is None, self._log.read_text()
        with socket.socket() as probe:
            return probe.connect_ex((HOST, self.port)) == 0

    def __enter__(self):
        self.start()
        return self

    def cut_power(self):
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()


@pytest.fixture
def broker(mosquitto, tmp_path, secrets):
    with DeployedBroker(mosquitto, tmp_path, secrets) as broker:
        yield broker


def config(folder, broker, files, *, device="box1", user="box1", certificate=True):
    own = f", cert_file: {files['cert']}, key_file: {files['key']}" if certificate else ""
    file = folder / "edgevision.yaml"
    file.write_text(f"""\
device: {device}
state_dir: {folder}/state
mqtt:
  host: {HOST}
  port: {broker.port}
  username: {user}
  password_file: {files["password"]}
  tls: {{ca_file: {files["ca"]}{own}}}
  results: {{qos: 1}}
models: {{m: {{model: efficientnet-lite0, backend: litert}}}}
cameras:
  - {{name: infeed, model: m, fps: 5, source: {{type: images, path: '{PHOTOS}', loop: true}}}}
""")
    return file


def watcher(broker, secrets):
    files = member(secrets, "dashboard")
    tls = (files["ca"], files["cert"], files["key"])
    return Listener(broker.port, username="dashboard", password=files["password"].read_text().strip(), tls=tls)


def test_a_box_with_its_certificate_and_password_is_heard(tmp_path, broker, secrets):
    file = config(tmp_path, broker, member(secrets, "box1"))
    with watcher(broker, secrets) as listener, ServiceManager(tmp_path, file) as manager:
        listener.wait_for(lambda heard: heard.topic == "edgevision/box1/infeed/results", 60)
        assert manager.terminate() == 0


def expired(folder, secrets):
    """A certificate of our own authority whose time is over."""
    key, cert = folder / "old.key", folder / "old.crt"
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=box1",
            "-keyout", key, "-out", folder / "old.csr")  # fmt: skip
    (folder / "index").touch()
    (folder / "ca.cnf").write_text(
        f"[ca]\ndefault_ca=d\n[d]\nnew_certs_dir={folder}\ndatabase={folder}/index\npolicy=p\ndefault_md=sha256\n"
        "rand_serial=yes\n[p]\ncommonName=supplied\n"
    )
    authority = secrets / "authority"
    openssl("ca", "-batch", "-notext", "-config", folder / "ca.cnf", "-cert", authority / "ca.crt", "-keyfile",
            authority / "ca.key", "-startdate", "20200101000000Z", "-enddate", "20200201000000Z", "-in",
            folder / "old.csr", "-out", cert)  # fmt: skip
    return {"cert": cert, "key": key}


def foreign(folder, _secrets):
    """A certificate that signed itself."""
    key, cert = folder / "own.key", folder / "own.crt"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=box1",
            "-days", "30", "-keyout", key, "-out", cert)  # fmt: skip
    return {"cert": cert, "key": key}


def wrong_password(folder, _secrets):
    (folder / "wrong").write_text("hunter2\n")
    return {"password": folder / "wrong"}


@pytest.mark.parametrize(
    ("what", "words"),
    [
        (None, "wants a client certificate: set tls.cert_file and tls.key_file"),
        (foreign, "refuses our certificate: check tls.cert_file"),
        (expired, "old.crt has expired on 2020-02-01: renew it (or this machine's clock is wrong)"),
        (wrong_password, "check username and password"),
    ],
    ids=["no certificate", "foreign certificate", "expired certificate", "wrong password"],
)
def test_who_is_not_known_is_refused_with_one_clear_line(tmp_path, broker, secrets, what, words):
    files = member(secrets, "box1") | (what(tmp_path, secrets) if what else {})
    file = config(tmp_path, broker, files, certificate=what is not None)
    with ServiceManager(tmp_path, file) as manager:
        marks = {wrong_password: "check username and password", expired: "closed the connection"}
        line = manager.wait_line(marks.get(what, "tls.cert_file"))
        # In TLS 1.3 the broker's reason may be overtaken by the end of the connection; then we say what it can be.
        overtaken = "does it want another client certificate (tls.cert_file, tls.key_file)"
        assert words in line or (what not in marks and overtaken in line)
        manager.wait_told("cameras live; mqtt: ")
        assert f"{HOST}:{broker.port}" in line
        manager.wait_told("1 of 1 cameras live")
        assert manager.terminate() == 0
        assert not any("hunter2" in line or "Traceback" in line for line in manager.lines)


def test_a_box_that_speaks_for_another_is_refused_and_told(tmp_path, broker, secrets):
    file = config(tmp_path, broker, member(secrets, "box1"), device="box2", user="box1")
    with watcher(broker, secrets) as listener, ServiceManager(tmp_path, file) as manager:
        line = manager.wait_line("does not let user 'box1' publish on 'edgevision/box2/")
        assert "the message is lost: check its access rules, and that device and mqtt.topic are this box's own" in line
        manager.terminate()
        other = tmp_path / "honest"
        other.mkdir()
        own = config(other, broker, member(secrets, "box1"))
        with ServiceManager(other, own) as honest:
            listener.wait_for(lambda heard: heard.topic.startswith("edgevision/box1/"), 60)
            honest.terminate()
        assert not [heard.topic for heard in listener.heard if heard.topic.startswith("edgevision/box2/")]


def test_what_the_broker_acknowledged_outlives_a_power_cut(tmp_path, broker, secrets):
    file = config(tmp_path, broker, member(secrets, "box1"))
    with ServiceManager(tmp_path, file) as manager:
        with watcher(broker, secrets) as listener:
            listener.wait_for(
                lambda heard: heard.topic == "edgevision/box1/infeed/status" and b'"live"' in heard.payload, 60
            )
        manager.process.kill()
        manager.process.wait()
        broker.cut_power()
    broker.start()
    with watcher(broker, secrets) as listener:
        heard = listener.wait_for(lambda heard: heard.topic == "edgevision/box1/infeed/status")
        assert heard.retain
        assert b'"live"' in heard.payload


def test_certificates_are_made_once_and_keys_are_for_their_owner_only(secrets):
    before = {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()}
    assert certificates(secrets, "broker", "broker,localhost,127.0.0.1").returncode == 0
    done = certificates(secrets, "device", "box1", "box2", "dashboard")
    assert "made" not in done.stdout
    assert {path: path.read_bytes() for path in secrets.rglob("*") if path.is_file()} == before
    for path in before:
        if path.suffix == ".key" or path.name in {"password", "passwords"}:
            assert path.stat().st_mode & 0o077 == 0, path
    authority = secrets / "authority" / "ca.crt"
    for path in (secrets / "broker" / "broker.crt", secrets / "devices" / "box1" / "device.crt"):
        assert "OK" in openssl("verify", "-CAfile", authority, path).stdout
    assert len((secrets / "broker" / "passwords").read_text().splitlines()) == 3


def test_a_dot_in_a_name_is_a_dot(tmp_path):
    users = []
    for name in ("line3xbox1", "line3.box1", "line3-box1"):  # the second's line is wanted though the first's is there
        assert certificates(tmp_path, "device", name).returncode == 0
        users.append(name)
        lines = (tmp_path / "broker" / "passwords").read_text().splitlines()
        assert [line.partition(":")[0] for line in lines] == users


def test_a_star_in_a_name_is_a_star(tmp_path):
    (tmp_path / "other.line3.example").touch()
    done = certificates(tmp_path / "s", "broker", "broker.line3.example,*.line3.example", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    shown = openssl("x509", "-in", tmp_path / "s" / "broker" / "broker.crt", "-noout", "-ext", "subjectAltName").stdout
    assert "DNS:broker.line3.example, DNS:*.line3.example" in shown


@pytest.mark.parametrize(
    ("arguments", "words"),
    [((), "needs DIR"), (("frobnicate", "x"), "unknown job"), (("device", "a/b"), "must be letters")],
)
def test_certificates_says_what_is_wrong(tmp_path, arguments, words):
    done = certificates(tmp_path / "s", *arguments)
    assert done.returncode == 2
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_compose_is_hardened_and_its_config_is_good(tmp_path, monkeypatch):
    compose = yaml.safe_load((DEPLOY / "compose" / "compose.yaml").read_text())
    for name, service in compose["services"].items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert not service["user"].startswith("0"), name
        assert {"mem_limit", "pids_limit", "restart"} <= service.keys(), name
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            if source.startswith(".") and "secrets" not in source:
                assert (DEPLOY / "compose" / source).is_file(), source
    build = compose["services"]["edgevision"]["build"]
    assert (DEPLOY.parent / build["dockerfile"]).is_file()
    text = (DEPLOY / "compose" / "edgevision.yaml").read_text()
    for name in ("password", "ca.crt", "device.crt", "device.key"):
        (tmp_path / name).touch()
    from edgevision import config as configs
    from edgevision import documents
    from edgevision.errors import ConfigError

    document = documents.parse(text.replace("/etc/edgevision/secrets", str(tmp_path)), file="c", error=ConfigError)
    config = configs.from_document(document, folder=tmp_path)
    assert config.device == "line3-box1"
    grace_s = float(compose["services"]["edgevision"]["stop_grace_period"].removesuffix("s"))
    assert grace_s >= config.supervision.stop_deadline_s + STOP_MARGIN_S, "SIGKILL would cut the drain off"


@pytest.mark.parametrize("file", sorted((DEPLOY / "docker").glob("*.Dockerfile")), ids=lambda path: path.stem)
def test_images_are_built_in_two_stages_and_run_as_nobody(file):
    lines = file.read_text().splitlines()
    stages = [line for line in lines if line.startswith("FROM ")]
    assert len(stages) == 2
    assert all("/" not in line.split()[1] and ":" in line.split()[1] for line in stages), "plain names, with a tag"
    last = lines[lines.index(stages[1]) :]
    assert "USER 10001:10001" in last
    assert any(line.startswith("HEALTHCHECK") for line in last)
    for line in lines:
        if line.startswith("COPY ") and "--from" not in line:
            for source in line.split()[1:-1]:
                assert (DEPLOY.parent / source).exists(), source


def test_the_role_names_only_credentials_that_the_unit_loads():
    unit = (DEPLOY.parent / "systemd" / "edgevision.service").read_text()
    site = yaml.safe_load((DEPLOY / "ansible" / "site.yml").read_text())
    for name in site[0]["roles"][0]["vars"]["edgevision_credentials"]:
        assert f"LoadCredential=edgevision.{name}\n" in unit


def test_shellcheck_finds_nothing_in_the_scripts():
    checker = shutil.which("shellcheck")
    if checker is None:
        pytest.skip("needs shellcheck: apt-get install shellcheck")
    scripts = [DEPLOY / "certificates", DEPLOY.parent / "tests" / "installation" / "boot"]
    subprocess.run([checker, *scripts], check=True)
