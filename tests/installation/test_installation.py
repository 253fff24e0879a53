"""Installing below another root, as a package would; systemd's own tools judge the units."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from edgevision.environment import shipped_dir
from edgevision.errors import StateError, UsageError
from edgevision.installation import files
from edgevision.installation.files import PLACES, wanted_files
from edgevision.installation.steps import Hand, systemd_version

BEST_SCORE = 2.5


@pytest.fixture(scope="module")
def analyze():
    binary = shutil.which("systemd-analyze")
    if binary is None:
        pytest.skip("needs systemd-analyze: apt-get install systemd")
    return binary


@pytest.fixture
def program(tmp_path):
    program = tmp_path / "bin" / "edgevision"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    return program


def tree(root):
    return sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file())


def test_install_is_idempotent_and_uninstall_removes_exactly_what_it_wrote(command_line, tmp_path, program):
    root = tmp_path / "root"
    (root / "etc" / "edgevision").mkdir(parents=True)
    (root / "etc" / "edgevision" / "line3.yaml").write_text("mine\n")
    first = command_line("install", "--prefix", root, "--program", program)
    assert first.returncode == 0, first.stderr
    assert set(tree(root)) == {
        *PLACES.values(),
        "etc/edgevision/edgevision.yaml",
        "etc/edgevision/installed.json",
        "etc/edgevision/line3.yaml",
    }
    assert f"ExecStart={program} run" in (root / PLACES["edgevision.service"]).read_text()
    assert (root / "etc/edgevision/edgevision.yaml").stat().st_mode & 0o777 == 0o640
    second = command_line("install", "--prefix", root, "--program", program)
    assert second.returncode == 0
    assert {line.split()[0] for line in second.stdout.splitlines()} == {"keep"}
    gone = command_line("uninstall", "--prefix", root)
    assert gone.returncode == 0, gone.stderr
    assert tree(root) == ["etc/edgevision/line3.yaml"]
    again = command_line("uninstall", "--prefix", root)
    assert (again.returncode, "nothing is recorded" in again.stderr) == (2, True)


def test_what_somebody_changed_stays_and_a_config_is_never_overwritten(command_line, tmp_path, program):
    root = tmp_path / "root"
    own = root / "etc/edgevision/edgevision.yaml"
    own.parent.mkdir(parents=True)
    own.write_text("mine\n")
    command_line("install", "--prefix", root, "--program", program)
    unit, rules = root / PLACES["edgevision.service"], root / PLACES["70-edgevision.rules"]
    rules.write_text("# changed\n")
    unit.write_text(unit.read_text())
    other = tmp_path / "bin" / "other"
    done = command_line("upgrade", "--prefix", root, "--program", other)
    assert done.returncode == 0, done.stderr
    assert f"ExecStart={other} run" in unit.read_text(), "ours and out of date: renewed"
    assert rules.read_text() == "# changed\n"
    assert own.read_text() == "mine\n"
    done = command_line("uninstall", "--prefix", root)
    assert tree(root) == ["etc/edgevision/edgevision.yaml", PLACES["70-edgevision.rules"]]
    assert "changed by somebody" in done.stdout


def test_a_dry_run_says_the_same_and_does_nothing(command_line, tmp_path, program):
    root = tmp_path / "root"
    dry = command_line("install", "--prefix", root, "--program", program, "--dry-run")
    assert not root.exists()
    assert dry.stdout == command_line("install", "--prefix", root, "--program", program).stdout
    before = tree(root)
    command_line("uninstall", "--prefix", root, "--dry-run")
    assert tree(root) == before
    real = command_line("install", "--program", program, "--dry-run")
    assert "run     systemctl daemon-reload" in real.stdout or "the service cannot see" in real.stderr


def test_a_config_with_faults_is_refused_before_anything_is_written(command_line, tmp_path, program):
    bad = tmp_path / "bad.yaml"
    bad.write_text("device: a b\n")
    done = command_line("install", "--prefix", tmp_path / "root", "--program", program, "-c", bad)
    assert done.returncode == 2
    assert not (tmp_path / "root").exists()


def test_not_root_and_no_systemd_are_said_first(monkeypatch):
    hand = Hand(root=Path("/"), dry_run=False, say=print)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(UsageError, match="needs root"):
        hand.check_may()
    monkeypatch.setattr("os.geteuid", lambda: 0)
    if not Path("/run/systemd/system").is_dir():
        with pytest.raises(UsageError, match="--prefix"):
            hand.check_may()


def test_a_program_that_the_service_could_not_see_is_refused():
    with pytest.raises(UsageError, match="/opt/edgevision"):
        list(wanted_files(Path("/"), program=Path("/home/me/venv/bin/edgevision"), systemd_version=252))


@pytest.mark.parametrize("how", ["link", "interpreter", "linked interpreter"])
def test_so_is_one_whose_python_it_could_not_see(tmp_path, monkeypatch, how):
    monkeypatch.setattr(files, "_HIDDEN", (str(tmp_path / "home"),))
    home, opt = tmp_path / "home", tmp_path / "opt"
    home.mkdir()
    opt.mkdir()
    (home / "python3").write_text("")
    (opt / "python3").symlink_to(home / "python3")
    program = opt / "edgevision"
    if how == "link":
        program.symlink_to(home / "python3")
    else:
        program.write_text(f"#!{home if how == 'interpreter' else opt}/python3 -E\nimport edgevision\n")
    with pytest.raises(
        UsageError, match=f"{program}: needs {home}/python3, and the service cannot see .*/usr/bin/python3 -m"
    ):
        list(wanted_files(Path("/"), program=program, systemd_version=252))
    program.unlink()
    program.write_text("#!/bin/sh\n")
    assert list(wanted_files(Path("/"), program=program, systemd_version=252))


def test_a_step_that_fails_is_one_line_and_may_be_allowed_to(tmp_path):
    said: list[str] = []
    hand = Hand(root=Path("/"), dry_run=False, say=said.append)
    with pytest.raises(StateError, match="false: failed with 1"):
        hand.run("false")
    hand.run("no-such-program-here", may_fail=True)
    assert "no such program" in said[-1]
    (tmp_path / "etc/edgevision").mkdir(parents=True)
    (tmp_path / "etc/edgevision/installed.json").write_text("[]")
    with pytest.raises(StateError, match="no record"):
        Hand(root=tmp_path, dry_run=False, say=said.append).take_away()


def test_an_older_systemd_gets_no_keys_it_does_not_know():
    assert systemd_version(["systemd 252 (252.38-1~deb12u1)"]) == 252
    assert systemd_version([]) is None

    def unit(version):
        files = wanted_files(Path("/x"), program=Path("/opt/e"), systemd_version=version)
        return next(file.content.decode() for file in files if file.path.name == "edgevision.service")

    assert "RestartSteps" not in unit(252)
    assert "RestartSteps" in unit(None)
    for version in (252, None):
        assert "Type=notify\n" in unit(version)
        assert "ExecReload=" in unit(version)
    assert "Type=notify-reload\n" in unit(253)
    assert "ExecReload=" not in unit(253)


@pytest.mark.parametrize("unit", ["edgevision.service", "edgevision@.service"])
def test_systemd_itself_finds_the_unit_good_and_its_exposure_low(analyze, tmp_path, program, unit):
    version = systemd_version(
        subprocess.run([analyze, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()
    )
    root = tmp_path / "root"
    Hand(root=root, dry_run=False, say=print).put(wanted_files(root, program=program, systemd_version=version))
    installed = root / PLACES[unit]
    verified = subprocess.run(
        [analyze, "verify", "--man=no", str(installed)], check=False, capture_output=True, text=True
    )
    ours = [line for line in verified.stderr.splitlines() if "edgevision" in line]
    assert (verified.returncode, ours) == (0, []), verified.stderr
    judged = subprocess.run(
        [analyze, "security", "--offline=true", "--no-pager", str(installed)],
        check=False,
        capture_output=True,
        text=True,
    )
    score = re.search(r"Overall exposure level for \S+: (\d+\.\d+)", judged.stdout)
    assert score is not None, judged.stderr
    assert float(score.group(1)) <= BEST_SCORE


def test_the_template_is_the_unit_with_an_instance():
    """One is written from the other by hand; what they set must be the same keys."""

    def keys(name):
        lines = (shipped_dir("systemd") / name).read_text().splitlines()
        return [line.partition("=")[0] for line in lines if line and line[0] not in "#["]

    assert keys("edgevision.service") == keys("edgevision@.service")


def test_a_unit_that_stops_takes_no_instances_health_along():
    """systemd removes a runtime folder with all it holds."""

    def folder(name):
        text = (shipped_dir("systemd") / name).read_text()
        (found,) = re.findall(r"^RuntimeDirectory=(\S+)$", text, re.MULTILINE)
        return Path(found.replace("%i", "line3"))

    assert not folder("edgevision@.service").is_relative_to(folder("edgevision.service"))


def test_health_is_what_the_watchman_wrote(command_line, tmp_path):
    from edgevision.clock import SYSTEM_CLOCK
    from edgevision.environment import kernel_boot_id

    assert command_line("health", "--folder", tmp_path).returncode == 1
    now_ns = SYSTEM_CLOCK.monotonic_ns()
    found = {"healthy": True, "reason": "r", "monotonic_ns": now_ns, "boot": kernel_boot_id()}

    def ask(**changes):
        (tmp_path / "health.json").write_text(json.dumps(found | changes))
        done = command_line("health", "--folder", tmp_path)
        return done.returncode, done.stdout

    assert ask() == (0, "healthy: r\n")
    assert ask(healthy=False)[0] == 1
    assert ask(monotonic_ns=now_ns - 31 * 10**9)[0] == 1
    assert ask(boot="another")[0] == 1
