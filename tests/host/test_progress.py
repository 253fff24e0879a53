"""The progress bar: nothing without a terminal; on a terminal a bar that is taken down again, after Ctrl-C too."""

import os
import pty
import subprocess
import sys

import pytest

from edgevision.host.progress import progress, track


def test_nothing_is_drawn_without_a_terminal(capfd):
    assert list(track("reading", [1, 2, 3])) == [1, 2, 3]
    with progress("reading", 3) as advance:
        advance(3)
    assert capfd.readouterr() == ("", "")


def test_what_goes_wrong_inside_comes_out():
    with pytest.raises(ZeroDivisionError), progress("reading", 1):
        raise ZeroDivisionError


@pytest.mark.parametrize("ends", ["pass", "raise KeyboardInterrupt"])
def test_on_a_terminal_the_bar_is_drawn_and_taken_down(ends):
    code = f"""
from edgevision.host.progress import track
for item in track("looking at [pictures]", list(range(5))):
    if item == 3:
        {ends}
"""
    master, slave = pty.openpty()
    environ = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    with subprocess.Popen([sys.executable, "-c", code], stderr=slave, stdout=subprocess.PIPE, env=environ) as process:
        os.close(slave)
        drawn = b""
        while True:
            try:
                part = os.read(master, 4096)
            except OSError:  # Linux: the other side has closed
                break
            if not part:
                break
            drawn += part
        assert process.stdout is not None
        assert process.stdout.read() == b""
    os.close(master)
    assert b"looking at [pictures]" in drawn
    assert b"5/5" in drawn or ends != "pass"
    assert b"\x1b[?25h" in drawn  # the cursor is shown again
