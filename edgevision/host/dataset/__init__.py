"""Labelled pictures: reading and writing the formats, and what is done with them before a model sees one."""

from edgevision.host.dataset.formats import FORMATS, Written, read, refuse_faults, write
from edgevision.host.dataset.uses import note_use

__all__ = ["FORMATS", "Written", "note_use", "read", "refuse_faults", "write"]
