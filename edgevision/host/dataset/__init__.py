"""Labelled pictures: reading and writing the four formats, and what is done with them before a model sees one."""
