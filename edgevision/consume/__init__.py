"""The other end: messages off the broker and handed on once each, with every gap named.

The daemon sends at least once: after an outage a message may come twice, and late. A consumer turns that into exactly once, by
`topic`, `boot_id` and `seq` of each message (see `Consumer` for what is guaranteed, and where it ends).
"""

from __future__ import annotations

from edgevision.consume.consumer import Consumer, ConsumerOptions, Counts
from edgevision.consume.identity import Delivered
from edgevision.consume.ledger import Notice
from edgevision.consume.outlet import JsonLinesFile

__all__ = ["Consumer", "ConsumerOptions", "Counts", "Delivered", "JsonLinesFile", "Notice"]
