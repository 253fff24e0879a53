"""Prints the machine and the versions as JSON, without the machine's own name; run in edgevision's environment."""

from __future__ import annotations

import json

from edgevision.host.benchmark.machine import environment

print(json.dumps({key: value for key, value in environment().items() if key != "host"}))
