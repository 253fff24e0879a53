"""Describing a model file that nobody has described: a manifest, each line with how sure it is and why.

told       what the user says himself, which outweighs everything
metadata   what exporters write into a file: Ultralytics, TensorFlow Lite, MediaPipe
facts      what is known before anything is proposed
families   which decoder fits the outputs; the YOLOs are in `yolos`
pixels     how the picture is wanted
proposal   the lines together, as a model.yaml
propose    all of it
"""

from edgevision.proposals.proposal import Line, Proposal, Sureness
from edgevision.proposals.propose import propose
from edgevision.proposals.told import Told, changed

__all__ = ["Line", "Proposal", "Sureness", "Told", "changed", "propose"]
