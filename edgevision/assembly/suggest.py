"""A file that nobody has described, loaded so that a proposal can be made of it, and tried as the proposal says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from edgevision import graphs, model_store, registry
from edgevision.assembly.building import ModelSettings, assemble, open_backend
from edgevision.assembly.identify import Described
from edgevision.errors import EdgevisionError, ModelError, UsageError
from edgevision.inference.base import Backend
from edgevision.model_store import ModelFolder
from edgevision.proposals import Proposal, Told, propose


@dataclass(frozen=True, slots=True, kw_only=True)
class Suggested:
    """A proposal, and the loaded file that it is for."""

    proposal: Proposal
    file: Path
    content: bytes
    backend_name: str
    backend: Backend
    settings: ModelSettings

    def close(self) -> None:
        """Let go of the runtime."""
        self.backend.close()

    def described(self, *, accept: bool) -> Described:
        """The file as the proposal says, run once; lets go of the runtime where that fails.

        Raises:
            UsageError: something is missing, or not certain and not accepted; the message says what to say.
            ModelError: the model and the proposal do not fit.
        """
        try:
            return self._described(accept=accept)
        except EdgevisionError:
            self.close()
            raise

    def _described(self, *, accept: bool) -> Described:
        manifest = self.proposal.manifest(
            backend=self.backend_name,
            path=model_store.stored_name(self.file),
            sha256=model_store.digest_of(self.content),
            size=len(self.content),
        )
        if self.proposal.unsure and not accept:
            raise UsageError(
                f"{self.file}: not all is certain; it was not added. Say what you know, or accept it all with --accept:"
                + self.proposal.advice()
            )
        try:
            model = assemble(
                manifest, self.proposal.labels, self.backend_name, self.backend, self.settings, where=str(self.file)
            )
            model.warm_up()
        except ModelError as failure:
            raise ModelError(
                f"{failure}; the proposal does not fit the file: say more of it with the options"
            ) from failure
        return Described(
            model=model,
            manifest=manifest,
            content=self.content,
            like="",
            labels_from=self.file.parent,
            labels=self.proposal.labels,
        )


def described_already(file: Path, *, models_dir: Path | None = None) -> ModelFolder | None:
    """The model that has this very file, by its sha256; None where none has."""
    digest = model_store.digest(file)
    for path in model_store.list_folders(models_dir):
        try:
            folder = model_store.open_folder(path)
        except EdgevisionError:
            continue  # `models list` shows it with its fault
        if any(section.sha256 == digest for section in folder.manifest.files.values()):
            return folder
    return None


def suggest(
    file: Path, *, name: str | None = None, told: Told | None = None, settings: ModelSettings | None = None
) -> Suggested:
    """Load a bare file and propose how it is meant.

    Raises:
        UsageError: the suffix or the family that is said is not known.
        ModelError: it cannot be read, or its runtime refuses it.
        PluginError: the runtime is not installed.
    """
    chosen = settings or ModelSettings()
    if told is not None and told.family is not None:
        registry.load("decode", told.family)  # an unknown one is an error
    backend_name = model_store.backend_for(file, chosen.backend)
    content = model_store.read_file(file)
    graph = graphs.read(content, str(file))
    backend = open_backend(backend_name, content, chosen, where=str(file))
    proposal = propose(
        graph,
        content,
        backend.inputs,
        backend.outputs,
        file=str(file),
        name=name or model_store.default_name(file),
        told=told or Told(),
    )
    return Suggested(
        proposal=proposal,
        file=file,
        content=content,
        backend_name=backend_name,
        backend=backend,
        settings=chosen,
    )
