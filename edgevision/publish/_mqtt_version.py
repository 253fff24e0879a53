"""Which MQTT to speak: 5, and 3.1.1 where the broker does not speak 5. One rule for whoever connects.

Most brokers of old refuse MQTT 5 in plain words. Some close the connection instead, and some take a CONNECT that they do not
know for an unfinished packet and wait for the rest in silence. Neither proves anything: a broker that is being restarted does
the same. So 3.1.1 is tried after several connections without an answer, and given up again if it does no better.
"""

from __future__ import annotations

from typing import Literal

from edgevision.broker.client import Version

_TRIES_UNANSWERED = 3
"""Connections without an answer before MQTT 3.1.1 is tried."""


class VersionChoice:
    """What to speak next; used by one thread."""

    def __init__(self, protocol: Literal["auto", "5", "3.1.1"]) -> None:
        """`protocol` is the user's."""
        self.version: Version = "3.1.1" if protocol == "3.1.1" else "5"
        self.known = protocol != "auto"
        """Whether it is no guess: asked for, or spoken before."""
        self._unanswered = 0

    @property
    def in_doubt(self) -> bool:
        """Whether the last connections got no answer: the next is to ask no more than that."""
        return self._unanswered > 0

    def answered(self) -> None:
        """The broker has answered after all."""
        self._unanswered = 0

    def spoken(self) -> None:
        """A connection was welcomed: this is it, from now on."""
        self._unanswered = 0
        self.known = True

    def failed(self, *, refused: bool, unanswered: bool) -> bool:
        """A connection came to nothing; True where another version is to be tried at once.

        Args:
            refused: the broker refused the version.
            unanswered: it was silent, or closed the connection before any answer.
        """
        if self.known:
            return False
        if self.version == "3.1.1":
            self.version = "5"  # 3.1.1 was a guess, and did no better
            return False
        self._unanswered = self._unanswered + 1 if unanswered else 0
        if refused or self._unanswered >= _TRIES_UNANSWERED:
            self._unanswered = 0
            self.version = "3.1.1"
            return True
        return False
