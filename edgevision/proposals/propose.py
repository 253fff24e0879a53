"""A proposal for a file: every key of its model.yaml, with how sure it is and why; nothing is guessed in silence."""

from __future__ import annotations

from typing import Any

from edgevision import registry
from edgevision.graphs import Graph
from edgevision.proposals import metadata
from edgevision.proposals.facts import Facts, Family
from edgevision.proposals.families import recognise
from edgevision.proposals.pixels import input_lines
from edgevision.proposals.proposal import Line, Proposal, Sureness, with_said
from edgevision.proposals.told import Told
from edgevision.types import TensorSpec

_TASKS = {"classifier": "classification", "semantic": "segmentation", "embedding": "embedding"}


def propose(
    graph: Graph,
    content: bytes,
    inputs: tuple[TensorSpec, ...],
    outputs: tuple[TensorSpec, ...],
    *,
    file: str,
    name: str,
    told: Told,
) -> Proposal:
    """Propose a manifest.

    Args:
        graph: the file, read.
        content: the file.
        inputs: as its runtime tells them.
        outputs: likewise.
        file: for messages.
        name: of the new model.
        told: what the user says, which outweighs everything.
    """
    notes = metadata.read(graph, content)
    labels, labels_line = _labels(notes, told)
    facts = Facts(graph=graph, notes=notes, inputs=inputs, outputs=outputs, labels=labels, said_size=told.size)
    family = recognise(facts)
    if told.family is not None and (family is None or family.name != told.family):
        family = None  # its roles and options are another family's
    lines = [
        *_family_lines(family, told, facts),
        *input_lines(facts, family or _as_said(told)),
        *(family.constants if family else ()),
        *_outputs(family, facts),
        *(family.decoder if family else ()),
        *([labels_line] if labels_line is not None else []),
        *_ending(family, facts, told),
    ]
    return Proposal(file=file, name=name, lines=_in_order(with_said(lines, _said(told))), labels=labels)


def _as_said(told: Told) -> Family | None:
    """A family of which only the name is known: its authors' pixels are known all the same."""
    if told.family is None:
        return None
    return Family(name=told.family, task="", sureness=Sureness.SAID, why="", outputs=())


def _family_lines(family: Family | None, told: Told, facts: Facts) -> list[Line]:
    known = registry.available("decode")
    if family is not None:
        line = Line(key="family", value=family.name, sureness=family.sureness, why=family.why, say="--family NAME")
        if family.name not in known:
            why = f"{family.why}; this installation has no decoder {family.name}: it has {', '.join(known)}"
            line = Line(key="family", value=family.name, sureness=Sureness.MISSING, why=why, say="--family NAME")
        why = f"what {family.name} is for"
        return [Line(key="task", value=family.task, sureness=Sureness.CERTAIN, why=why), line]
    if told.family is not None:
        task = _TASKS.get(told.family, "detection")
        return [Line(key="task", value=task, sureness=Sureness.CERTAIN, why=f"what {told.family} is for")]
    shapes = ", ".join(f"{spec.name} {spec.dtype} {list(spec.shape)}" for spec in facts.outputs)
    why = f"no rule knows outputs like {shapes}; known decoders: {', '.join(known)}"
    return [
        Line(key="family", value=None, sureness=Sureness.MISSING, why=why, say="--family NAME and --output ROLE=TENSOR")
    ]


def _outputs(family: Family | None, facts: Facts) -> list[Line]:
    if family is not None:
        return list(family.outputs)
    names = ", ".join(spec.name for spec in facts.outputs)
    return [
        Line(key="outputs", value=None, sureness=Sureness.MISSING, why=f"which of {names} has which role",
             say="--output ROLE=TENSOR")
    ]  # fmt: skip


def _labels(notes: metadata.Notes, told: Told) -> tuple[tuple[str, ...], Line | None]:
    if told.labels is not None:
        return told.labels, None
    if notes.ultralytics is not None:
        names = notes.ultralytics.names
        return names, Line(
            key="labels", value="labels.txt", sureness=Sureness.CERTAIN, why=f"{len(names)} names in the metadata"
        )
    found = notes.labels
    if found is not None and found[1]:
        why = f"{len(found[1])} lines of {found[0]}, which the file carries"
        return found[1], Line(key="labels", value="labels.txt", sureness=Sureness.CERTAIN, why=why)
    return (), None


def _ending(family: Family | None, facts: Facts, told: Told) -> list[Line]:
    """Activation, thresholds, and where it comes from."""
    lines = []
    if family is not None and family.activation is not None:
        lines.append(family.activation)
    elif told.activation is None:
        why = "nothing tells what the scores still need"
        lines.append(Line(key="activation", value=None, sureness=Sureness.MISSING, why=why, say="--activation NAME"))
    confidence = next((note.threshold for note in facts.notes.outputs if note.threshold), None)
    if confidence is not None and 0 <= confidence <= 1:
        lines.append(
            Line(
                key="thresholds.confidence",
                value=round(confidence, 4),
                sureness=Sureness.CERTAIN,
                why="in the metadata",
            )
        )
    elif family is not None and family.confidence:
        why = "a usual beginning; set your own in the config"
        lines.append(Line(key="thresholds.confidence", value=family.confidence, sureness=Sureness.CERTAIN, why=why))
    ultralytics = facts.notes.ultralytics
    licence = facts.notes.licence or (ultralytics.licence if ultralytics else "")
    lines += [
        Line(key="licence", value=licence or "unknown", sureness=Sureness.CERTAIN,
             why="in the metadata" if licence else "the file does not say"),
        Line(key="source", value=_source(facts), sureness=Sureness.CERTAIN, why="what the file says of itself"),
    ]  # fmt: skip
    return lines


def _source(facts: Facts) -> str:
    notes = facts.notes
    parts = [notes.name, notes.ultralytics.description if notes.ultralytics else "", facts.graph.producer]
    return "; ".join(dict.fromkeys(part for part in parts if part)) or "a local file"


def _said(told: Told) -> dict[str, tuple[Any, str]]:
    """What the user says, by key."""
    said: dict[str, tuple[Any, str]] = {}
    if told.family is not None:
        said["family"] = (told.family, "--family")
    for key, value in told.input.items():
        said[f"input.{key}"] = (value, "--raw" if told.raw and value is None else f"--{key}")
    if told.resize is not None:
        said["input.options"] = ({}, "--resize: with that preprocessor's defaults")
    said |= {f"outputs.{role}": (tensor, "--output") for role, tensor in told.outputs.items()}
    said |= {f"decoder.{key}": (value, "--decoder") for key, value in told.decoder.items()}
    if told.activation is not None:
        said["activation"] = (told.activation, "--activation")
    if told.labels is not None:
        said["labels"] = ("labels.txt", f"--labels, {len(told.labels)} lines")
    if told.outputs:
        said.setdefault("outputs", (None, ""))
    return said


_ORDER = ("task", "family", "input", "outputs", "decoder", "labels", "thresholds", "activation", "licence", "source")


def _in_order(lines: tuple[Line, ...]) -> tuple[Line, ...]:
    kept = [line for line in lines if not (line.key == "outputs" and line.sureness == Sureness.SAID)]
    return tuple(sorted(kept, key=lambda line: _ORDER.index(line.key.partition(".")[0])))
