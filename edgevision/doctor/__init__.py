"""What is right and wrong with this machine and a config: what `edgevision doctor` looks at, each fault with its fix.

findings   one line of the report
plan       what is to be looked at, from a config that may be broken
examine    every check in a process of its own, side by side, each within its time
config, runtimes, cameras, v4l2, video, broker, machine, folders, models    the checks
"""

from edgevision.doctor.examine import examine
from edgevision.doctor.findings import Finding

__all__ = ["Finding", "examine"]
