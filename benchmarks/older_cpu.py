"""Runs a command as it would run on an x86 CPU with AVX2 and without VNNI, AVX-512 and AMX: at full speed, on this CPU.

Most factory PCs are older than VNNI, and what 8 bits gain and lose there is a different matter: two products are added in 16
bits, which saturates, and a multiply-add takes three instructions and not one. A runtime chooses its kernels by what the
CPUID instruction says. So every `cpuid` in a copy of the runtime's libraries is replaced by an instruction that traps, and
a small preloaded library answers it: the truth, without those features. Nothing is emulated: the AVX2 kernels run natively.

    python benchmarks/older_cpu.py -- edgevision benchmark yolox-nano
    python benchmarks/older_cpu.py -- python benchmarks/overhead.py

The command sees a /proc/cpuinfo without those features, too, so that its reports name the CPU that was measured and
`--target auto` takes the older one.

What it needs: Linux on x86-64, gcc, objdump and unshare (Debian: gcc, binutils, util-linux), and leave to make a mount
namespace.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGES = ("onnxruntime", "openvino")
"""Whose libraries are copied and changed, where they are installed."""
_CPUID, _TRAP = b"\x0f\xa2", b"\x0f\x0b"
_SOURCE = Path(__file__).with_suffix(".c")
_SECTION = re.compile(r"^\s*\d+\s+(\S+)\s+([0-9a-f]+)\s+([0-9a-f]+)\s+[0-9a-f]+\s+([0-9a-f]+)", re.MULTILINE)
_INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+cpuid\b", re.MULTILINE)
_HIDDEN = re.compile(r" (avx512\w*|avx_vnni\w*|avx_ifma|avx_ne_convert|avx10\w*|amx_\w+)\b")
"""As /proc/cpuinfo names what older_cpu.c hides."""


def hide_in(library: Path) -> int:
    """Replace every `cpuid` of a shared library by `ud2`; how many there were."""
    listing = _run("objdump", "-d", "--no-show-raw-insn", str(library))
    addresses = [int(match[1], 16) for match in _INSTRUCTION.finditer(listing)]
    if not addresses:
        return 0
    sections = [
        (int(match[3], 16), int(match[2], 16), int(match[4], 16))
        for match in _SECTION.finditer(_run("objdump", "-h", str(library)))
    ]
    content = bytearray(library.read_bytes())
    for address in addresses:
        start, _, offset = next(part for part in sections if part[0] <= address < part[0] + part[1])
        place = offset + address - start
        if content[place : place + 2] != _CPUID:
            raise SystemExit(f"{library}: no cpuid at {address:#x}: objdump and the file disagree")
        content[place : place + 2] = _TRAP
    library.write_bytes(content)
    return len(addresses)


def prepare(folder: Path) -> dict[str, str]:
    """Copies of the runtimes in `folder`, changed, and the environment in which they are what Python imports."""
    hider = folder / "older_cpu.so"
    _run("gcc", "-O2", "-Wall", "-shared", "-fPIC", "-o", str(hider), str(_SOURCE))
    for package in PACKAGES:
        found = importlib.util.find_spec(package)
        if found is None or found.origin is None:
            continue
        source = Path(found.origin).parent
        shutil.copytree(source, folder / package, symlinks=True)
        changed = 0
        for library in sorted((folder / package).rglob("*.so*")):
            if library.is_file() and not library.is_symlink() and library.read_bytes()[:4] == b"\x7fELF":
                changed += hide_in(library)
        print(f"{package}: {changed} places that ask for the CPU's features are answered without VNNI", file=sys.stderr)
    paths = [str(folder), os.environ.get("PYTHONPATH", "")]
    return os.environ | {"LD_PRELOAD": str(hider), "PYTHONPATH": os.pathsep.join(filter(None, paths))}


def in_front_of(folder: Path) -> list[str]:
    """What a command is started through, to see the older CPU in /proc/cpuinfo."""
    shown = folder / "cpuinfo"
    shown.write_text(_HIDDEN.sub("", Path("/proc/cpuinfo").read_text()))
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    mount = 'mount --bind "$0" /proc/cpuinfo && exec "$@"'
    return ["unshare", "--mount", *user, "sh", "-c", mount, str(shown)]


def _run(*command: str) -> str:
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise SystemExit(f"{command[0]} is not here; apt install gcc binutils") from None
    except subprocess.CalledProcessError as failure:
        raise SystemExit(f"{' '.join(command)}: {failure.stderr.strip()}") from None


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="what to run, after `--`")
    arguments = parser.parse_args()
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        raise SystemExit("only Linux on x86-64 can be made to look older")
    with tempfile.TemporaryDirectory(prefix="older-cpu-") as folder:
        environment = prepare(Path(folder))
        command = [*in_front_of(Path(folder)), *arguments.command]
        raise SystemExit(subprocess.run(command, env=environment, check=False).returncode)


if __name__ == "__main__":
    main()
