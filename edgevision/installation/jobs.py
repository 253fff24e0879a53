"""The three jobs, each as the order of its steps: install, upgrade, uninstall."""

from __future__ import annotations

from pathlib import Path

from edgevision.installation.files import CONFIG_PLACE, PLACES, this_program, wanted_files
from edgevision.installation.steps import Hand, ask_systemd_version


def install(hand: Hand, *, program: Path | None, config: Path | None, start: bool) -> None:
    """Put everything in place and start; a second time nothing changes.

    Raises:
        EdgevisionError: not root, no systemd, or a step fails; what was done is said before.
    """
    hand.check_may()
    _put(hand, program, config)
    hand.run("systemctl", "enable", "edgevision.service")
    if start:
        hand.run("systemctl", "restart", "edgevision.service")


def upgrade(hand: Hand, *, program: Path | None) -> None:
    """Renew what an older version wrote, and restart what runs; raises as `install` does."""
    hand.check_may()
    _put(hand, program, None)
    hand.run("systemctl", "try-restart", "edgevision.service", "edgevision@*.service")


def uninstall(hand: Hand) -> None:
    """Stop, and remove what was written; state, models and a changed config stay. Raises as `install` does."""
    hand.check_may()
    hand.run("systemctl", "disable", "--now", "edgevision.service", may_fail=True)
    hand.run("systemctl", "stop", "edgevision@*.service", may_fail=True)
    hand.take_away()
    hand.run("systemctl", "daemon-reload")
    hand.say(f"keep    {hand.root / 'var/lib/edgevision'} (state and models), the user edgevision, /etc/credstore")


def _put(hand: Hand, program: Path | None, config: Path | None) -> None:
    here = hand.root == Path("/")
    version = ask_systemd_version() if here else None
    hand.put(wanted_files(hand.root, program=program or this_program(), systemd_version=version, config=config))
    hand.run("systemd-sysusers", f"/{PLACES['sysusers.d-edgevision.conf']}")
    hand.run("systemd-tmpfiles", "--create", f"/{PLACES['tmpfiles.d-edgevision.conf']}")
    hand.give_to(hand.root / CONFIG_PLACE, "edgevision")
    # A container has systemd and no udev; there are no devices of its own to name then.
    hand.run("udevadm", "control", "--reload", may_fail=True)
    hand.run("udevadm", "trigger", "--subsystem-match=video4linux", "--subsystem-match=usb", may_fail=True)
    hand.run("systemctl", "daemon-reload")
