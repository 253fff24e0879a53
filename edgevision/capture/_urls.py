"""Camera addresses carry passwords, and logs, errors and messages travel: what is shown of an address is decided here.

Whoever shows an address (a log line, an error, a status page) shows `redact_url` of it, and hands text that may hold
one through the same function.
"""

from __future__ import annotations

import re

# User name and password end at the last "@": a password may itself hold "@" or "/" that nobody encoded. An address
# whose query holds "@" loses its host that way, which is the safe side to err on.
_USER_INFO = re.compile(r"\b([a-z][a-z0-9+.-]*://)\S*@", re.IGNORECASE)
# Cameras also take the password in the query or the path: ?user=admin&pwd=x, /user=admin_password=x_channel=1.
_SECRET = re.compile(r"((?:pass[a-z]*|pwd|token|secret|api_?key|key|auth|sig(?:nature)?)=)[^\s&#'\"]*", re.IGNORECASE)


def redact_url(text: str) -> str:
    """`text` (an address, or prose that holds one) with every user name, password and token replaced by `***`."""
    return _SECRET.sub(r"\1***", _USER_INFO.sub(r"\1***@", text))
