"""The doctor: real brokers, real runtimes, real folders; broken configs, hanging brokers and absent cameras are told."""

import json
import os
import shutil
import struct
import subprocess

import pytest
import yaml
from support_brokers import Certificates, Mosquitto, free_port, raw_server

from edgevision import model_store
from edgevision.doctor import broker, cameras, folders, machine, models, runtimes, v4l2, video
from edgevision.doctor.examine import Check, checks, run
from edgevision.doctor.plan import make_plan, read_plan

GOOD = {
    "device": "box",
    "sinks": [{"type": "jsonl", "path": "/dev/null"}],
    "models": {"parts": {"model": "efficientnet-lite0", "backend": "onnxrt"}},
    "cameras": [{"name": "infeed", "model": "parts", "source": {"type": "synthetic"}}],
}


def write(tmp_path, **changes):
    file = tmp_path / "edgevision.yaml"
    file.write_text(yaml.safe_dump({**GOOD, "state_dir": str(tmp_path / "state"), **changes}))
    return file


def states(findings, subject):
    return [finding.state for finding in findings if finding.subject.startswith(subject)]


# The whole


def test_a_good_config_on_this_machine_has_no_fault(tmp_path, command_line):
    done = command_line("doctor", "-c", write(tmp_path), "--json")
    told = json.loads(done.stdout)
    faults = [one for one in told["findings"] if one["state"] == "fault"]
    assert (faults, done.returncode) == ([], 0)
    assert {"config", "runtimes", "video", "cameras", "models", "folders", "machine"} <= {
        one["part"] for one in told["findings"]
    }
    assert all(one["fix"] for one in told["findings"] if one["state"] != "ok")


def test_a_broken_config_is_looked_at_as_far_as_it_goes(tmp_path, command_line):
    file = write(tmp_path, devise="x", mqtt={"host": "127.0.0.1", "port": free_port(), "connect_timeout_s": 1})
    done = command_line("doctor", "-c", file)
    assert done.returncode == 1
    assert "devise: unknown key; did you mean 'device'?" in " ".join(done.stdout.split())
    assert "refuses connections: no broker listens there" in " ".join(done.stdout.split())
    assert "size and sha256 are right" in " ".join(done.stdout.split())


@pytest.mark.parametrize("text", ["", "- 1\n", "{", "models: 3\ncameras: {}\nmqtt: x\nstate_dir: 7\n"])
def test_no_config_is_too_broken(tmp_path, text):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    plan = make_plan(file)
    assert [finding.state for finding in plan.findings] == ["fault"] * len(plan.findings) != []
    assert checks(plan, tmp_path)


def test_a_config_that_cannot_be_read_to_its_end_is_told_in_bounded_time(tmp_path):
    os.mkfifo(tmp_path / "c.yaml")  # nobody writes to it
    plan = read_plan(tmp_path / "c.yaml", deadline_s=3)
    (finding,) = plan.findings
    assert finding.state == "fault"
    assert "gave no answer within 3 s" in finding.found
    assert checks(plan, tmp_path)


def test_the_plan_comes_whole_out_of_its_process(tmp_path):
    file = write(tmp_path, mqtt={"host": "h", "password": "x", "username": "y"})
    assert read_plan(file, deadline_s=60) == make_plan(file)


def test_a_check_that_hangs_or_does_not_exist_costs_its_own_line():
    hangs = Check(part="p", subject="s", function="machine.check", job={}, deadline_s=0.02)
    crashes = Check(part="q", subject="t", function="machine.check", job={})
    (first, second) = run([hangs, crashes])
    assert (first.state, first.part) == ("fault", "p")
    assert "gave no answer within 0.02 s and was killed" in first.found
    assert "ended with status 1: KeyError: 'root'" in second.found


def test_secrets_stay_out_of_the_report(tmp_path, command_line):
    camera = {
        "name": "c",
        "model": "parts",
        "source": {"type": "opencv", "url": f"rtsp://u:geheim@127.0.0.1:{free_port()}/x"},
    }
    mqtt = {"host": "127.0.0.1", "port": free_port(), "username": "u", "password": "geheim"}
    done = command_line("doctor", "-c", write(tmp_path, cameras=[camera], mqtt=mqtt), "--json")
    assert done.returncode == 1
    assert "geheim" not in done.stdout + done.stderr
    assert "check the address and the port" in done.stdout


# The broker


def look(port, **more):
    return list(
        broker.check({"mqtt": {"host": "127.0.0.1", "port": port, "connect_timeout_s": 2, **more}, "device": "box"})
    )


def test_a_broker_is_really_logged_in_to(mosquitto, tmp_path):
    with Mosquitto(mosquitto, tmp_path) as one:
        found = look(one.port)
    assert [finding.state for finding in found] == ["ok", "ok"]
    assert found[-1].found == "MQTT 5 without a user name"


def test_a_refused_password_is_a_fault(mosquitto, tmp_path):
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    with Mosquitto(mosquitto, tmp_path, settings=(f"password_file {passwords}",)) as one:
        found = look(one.port, username="u", password="no")
    assert found[-1].state == "fault"
    assert "check username and password" in found[-1].fix


def test_tls_tells_how_long_the_certificate_lasts_and_who_signed_it(mosquitto, tmp_path):
    if shutil.which("openssl") is None:
        pytest.skip("needs openssl")
    made = Certificates(tmp_path)
    certificate, key = made.issue("broker")
    settings = ("allow_anonymous true", f"certfile {certificate}", f"keyfile {key}")
    with Mosquitto(mosquitto, tmp_path, settings=settings) as one:
        found = look(one.port, tls={"ca_file": str(made.ca)})
        strange = look(one.port, tls={"ca_file": str(made.other_ca)})
        missing = look(one.port, tls={"ca_file": str(tmp_path / "none.pem")})
    assert [finding.subject for finding in found] == ["network", "TLS", "login"]
    assert found[1].state == "warning"  # it is good for less than 30 days
    assert "good until" in found[1].found
    assert found[2].state == "ok"
    assert strange[-1].state == missing[-1].state == "fault"
    assert "ca_file" in strange[-1].found + strange[-1].fix


def test_a_port_that_says_nothing_is_told_in_bounded_time():
    def listen(connection):
        connection.recv(1 << 16)
        connection.recv(1)

    with raw_server(listen) as port:
        found = look(port, connect_timeout_s=0.3, protocol="5")
    assert [finding.state for finding in found] == ["ok", "fault"]
    assert "gives no answer within 0.3 s" in found[1].found


def test_a_broken_section_is_not_looked_at():
    (found,) = broker.check({"mqtt": {"host": "a:b"}, "device": "box"})
    assert found.state == "fault"
    assert "its section has faults" in found.found


# Cameras


class Driver:
    """A UVC camera's answers, packed as linux/videodev2.h lays them out."""

    FORMATS = (b"MJPG", b"YUYV")

    def __init__(self):
        self.sizes = {b"MJPG": ((1280, 720), (640, 480)), b"YUYV": ((640, 480),)}

    def __call__(self, descriptor, request, asked):
        index = struct.unpack_from("=I", asked)[0]
        if request == v4l2.QUERYCAP:
            return struct.pack("=16s32s32sIII12x", b"uvcvideo", b"HD Cam", b"usb-1", 0x60000, 0x80000001, 0x04200001)
        if request == v4l2.ENUM_FMT and struct.unpack_from("=I", asked, 4)[0] == 1 and index < 2:
            return struct.pack("=III32s4sI12x", index, 1, 0, b"a format", self.FORMATS[index], 0)
        if request == v4l2.ENUM_FRAMESIZES:
            fourcc = asked[4:8]
            if index < len(self.sizes[fourcc]):
                return struct.pack("=I4sIII24x", index, fourcc, 1, *self.sizes[fourcc][index])
        if request == v4l2.ENUM_FRAMEINTERVALS and index < 2:
            return struct.pack("=I4sIIIII24x", *struct.unpack_from("=I4sII", asked), 1, 1, (30, 15)[index])
        raise OSError(22, "Invalid argument")


def test_modes_are_read_as_the_kernel_lays_them_out():
    card = v4l2.query(0, Driver())
    assert (card.driver, card.card, card.captures) == ("uvcvideo", "HD Cam", True)
    assert [str(mode) for mode in v4l2.modes(0, Driver())] == [
        "MJPG 1280x720 at 30, 15",
        "MJPG 640x480 at 30, 15",
        "YUYV 640x480 at 30, 15",
    ]


def test_a_driver_whose_lists_never_end_is_cut_off():
    def endless(descriptor, request, asked):
        return asked + bytes(8) if request != v4l2.ENUM_FRAMESIZES else struct.pack("=I4sIII24x", 0, b"MJPG", 1, 8, 8)

    assert len(list(v4l2.modes(0, endless))) == 2 * 64 * 64


def test_numbers_and_offsets_are_those_of_the_kernel_s_header(tmp_path):
    compiler = shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs gcc")
    source = tmp_path / "v.c"
    source.write_text("""
#include <linux/videodev2.h>
#include <stddef.h>
#include <stdio.h>
int main(void) {
  printf("%x %x %x %x ", (unsigned)VIDIOC_QUERYCAP, (unsigned)VIDIOC_ENUM_FMT, (unsigned)VIDIOC_ENUM_FRAMESIZES,
         (unsigned)VIDIOC_ENUM_FRAMEINTERVALS);
  printf("%zu %zu %zu %zu ", sizeof(struct v4l2_capability), sizeof(struct v4l2_fmtdesc),
         sizeof(struct v4l2_frmsizeenum), sizeof(struct v4l2_frmivalenum));
  printf("%zu %zu %zu %zu\\n", offsetof(struct v4l2_capability, capabilities), offsetof(struct v4l2_fmtdesc, pixelformat),
         offsetof(struct v4l2_frmsizeenum, type), offsetof(struct v4l2_frmivalenum, type));
}
""")
    made = subprocess.run([compiler, source, "-o", tmp_path / "v"], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs the kernel's headers: {made.stderr.splitlines()[0]}")
    told = subprocess.run([tmp_path / "v"], capture_output=True, text=True, check=True).stdout.split()
    numbers = (v4l2.QUERYCAP, v4l2.ENUM_FMT, v4l2.ENUM_FRAMESIZES, v4l2.ENUM_FRAMEINTERVALS)
    assert told == [*(f"{number:x}" for number in numbers), "104", "64", "44", "52", "84", "44", "8", "16"]


def test_a_node_that_is_no_camera_and_one_that_is_missing(tmp_path):
    for name in ("video0", "video10", "video2"):
        (tmp_path / "sys/class/video4linux" / name).mkdir(parents=True)
        (tmp_path / "sys/class/video4linux" / name / "name").write_text("HD Cam\n")
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/video0").write_bytes(b"")
    asked = [check for check in checks(make_plan(None), tmp_path) if check.part == "cameras"]
    assert [check.subject for check in asked] == ["/dev/video0", "/dev/video2", "/dev/video10"]
    (no_camera, missing, _) = run(asked)
    assert "does not answer as a V4L2 device" in no_camera.found
    assert missing.state == "fault"
    assert "HD Cam: the kernel knows it, and it is not in /dev" in missing.found


def source(**given):
    return list(cameras.source({"camera": {"name": "c", "source": given}}))


def test_sources_of_a_config(tmp_path):
    with raw_server(lambda connection: None) as port:
        (found,) = source(type="opencv", url=f"http://127.0.0.1:{port}/mjpeg")
    assert found.state == "ok"
    assert "answers; the stream itself was not opened" in found.found
    (found,) = source(type="opencv", url=f"rtsp://127.0.0.1:{free_port()}/x")
    assert found.state == "fault"
    (found,) = source(type="opencv", url=str(tmp_path / "none.mp4"))
    assert (found.state, found.fix) == ("fault", "check `url`")
    (found,) = source(type="opencv", url="/dev/video77")
    assert "/dev/video77 is not there" in found.found
    assert source(type="synthetic")[0].state == "ok"
    assert source(type="nonesuch")[0].state == "fault"
    assert source() == source(type="opencv") == []  # the config's own check says so


# OpenCV, the machine, folders, models, runtimes


def test_opencv_is_judged_by_what_the_cameras_need():
    parts = {"FFMPEG": "NO", "GStreamer": "NO", "v4l/v4l2": "YES (x)"}
    information = "\n".join(f"    {name}:      {value}" for name, value in parts.items())
    stream, pipeline = {"type": "opencv", "url": "rtsp://h/x"}, {"type": "gstreamer"}
    assert [one.state for one in video.judge("4.9", information, [])] == ["ok", "warning", "ok"]
    assert [one.state for one in video.judge("4.9", information, [stream])] == ["ok", "fault", "ok"]
    assert [one.state for one in video.judge("4.9", information, [pipeline])] == ["ok", "warning", "fault"]
    assert states(video.build({"cameras": []}), "opencv") == ["ok"]


def made_root(tmp_path, *, milli_c, throttled="0x0"):
    zone = tmp_path / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "type").write_text("cpu-thermal\n")
    (zone / "temp").write_text(f"{milli_c}\n")
    firmware = tmp_path / "sys/devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text(throttled)
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/meminfo").write_text("MemAvailable:     100000 kB\n")
    return {"root": str(tmp_path), "state_dir": str(tmp_path), "spool_bytes": 0}


@pytest.mark.parametrize(("milli_c", "state"), [(45_000, "ok"), (82_000, "warning"), (99_000, "fault")])
def test_heat(tmp_path, milli_c, state):
    assert states(machine.check(made_root(tmp_path, milli_c=milli_c)), "temperature") == [state]


def test_a_weak_power_supply_little_memory_and_a_large_spool(tmp_path):
    job = {**made_root(tmp_path, milli_c=40_000, throttled="0x1"), "spool_bytes": 1 << 60}
    found = {one.subject: one for one in machine.check(job)}
    assert found["throttling"].state == found["memory"].state == found["disk"].state == "warning"
    assert "power supply" in found["throttling"].fix
    assert "mqtt.spool.max_bytes" in found["disk"].found


def test_folders_are_really_written_to(tmp_path):
    (tmp_path / "file").write_text("")
    options = {"cache_dir": str(tmp_path / "cache"), "providers": [{"tensorrt": {"cache_dir": "/proc/1/none"}}]}
    job = {
        "state_dir": str(tmp_path / "file" / "state"),
        "models_dir": str(tmp_path),
        "models": {"m": {"options": options}},
    }
    found = {one.subject: one for one in folders.check(job)}
    assert [*found] == [
        "state_dir",
        "models",
        "models.m.options.cache_dir",
        "models.m.options.providers.0.tensorrt.cache_dir",
    ]
    assert [one.state for one in found.values()] == ["fault", "ok", "ok", "fault"]
    assert list(tmp_path.iterdir()) == [tmp_path / "file"]


def test_models_are_verified(tmp_path):
    def look_at(model, **more):
        job = {"name": "m", "section": {"model": model, **more}, "models_dir": str(tmp_path), "named": True}
        return list(models.check(job))

    assert [one.state for one in look_at("efficientnet-lite0")] == ["ok", "ok"]
    assert look_at("none")[0].state == "fault"
    absent = look_at("yolox-nano")
    assert absent[0].state == "fault"
    assert absent[0].fix == "edgevision models pull yolox-nano"
    assert look_at("mobilenet-v2-quant")[0].fix == "edgevision models add FILE --like mobilenet-v2-quant"
    folder = tmp_path / "broken"
    shutil.copytree(model_store.find("efficientnet-lite0").path, folder)
    file = folder / "efficientnet-lite0-int8.onnx"
    file.write_bytes(file.read_bytes()[:-1] + b"\0")
    altered = look_at(str(folder))
    assert "the file was altered" in altered[0].found + altered[0].fix
    folder = tmp_path / "pulled"
    shutil.copytree(model_store.find("yolox-nano").path, folder)
    (folder / "yolox_nano.onnx").write_bytes(b"half of it")
    assert look_at(str(folder))[0].fix == f"edgevision models pull {folder}"


def test_runtimes_say_what_they_have_and_what_brings_the_rest():
    pytest.importorskip("onnxruntime")
    sections = [{"options": {"providers": ["xnnpack", {"cuda": {"optional": True}}, "cpu"]}}]
    found = list(runtimes.onnxrt({"models": sections}))
    assert states(found, "onnxrt providers") == ["ok"]
    assert states(found, "onnxrt xnnpack") == ["fault"]
    assert states(found, "onnxrt cuda") == ["warning"]
    assert "onnxruntime-qnn" in found[-1].found
    broken = [{"options": {"providers": ["cudda", 7, {"cuda": 3}], "delegates": ["x", None]}}]
    assert set(states(runtimes.onnxrt({"models": broken}), "onnxrt")) == {"ok"}
    assert set(states(runtimes.litert({"models": broken}), "litert")) == {"ok"}
    assert set(states(runtimes.litert({"models": []}), "litert")) == {"ok"}
    assert "CPU" in next(iter(runtimes.openvino({"models": []}))).found
