"""From the config's names to warm models with their cameras in place: what a start and a reload do alike. All or none."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from pathlib import Path

from edgevision import assembly, model_store
from edgevision.clock import Clock
from edgevision.config import Config
from edgevision.errors import EdgevisionError, ProbeError
from edgevision.messages import Composer
from edgevision.pipeline import Model, execution_of
from edgevision.runtime.crashes import CrashJournal
from edgevision.runtime.group import ModelGroup, sections_of
from edgevision.runtime.progress import Board
from edgevision.runtime.tally import Tally
from edgevision.types import Message

_log = logging.getLogger(__name__)

WARM_TIMES, SHORTEST_DEADLINE_S = 20.0, 10.0
"""An inference that takes so many times what a warm one took, and at least so many seconds, is stuck."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loader:
    """Loads models and makes their groups; nothing is published and nothing reads before the groups are started."""

    composer: Composer
    publish: Callable[[Message], None]
    clock: Clock
    board: Board
    journal: CrashJournal | None
    tallies: MutableMapping[str, Tally]

    def load(
        self,
        config: Config,
        names: Iterable[str],
        *,
        refused: dict[str, str] | None = None,
        all_may_fail: bool = False,
    ) -> dict[str, Loaded]:
        """Load models by the config's names, each warm after its first inference; those that no camera uses are left out.

        Args:
            config: the whole.
            names: of its models.
            refused: gets the models that did not survive their probe, with the reason; the others are loaded all the same.
                Without it, such a model is an error like any other.
            all_may_fail: that none survives is no error.

        Raises:
            EdgevisionError: one cannot be loaded, or none survived; those that were are closed again.
        """
        loaded: dict[str, Loaded] = {}
        last: ProbeError | None = None
        for name in names:
            if not sections_of(name, config.cameras):
                continue
            self._doing(f"model:{name}")
            try:
                loaded[name] = self._load(config, name)
            except ProbeError as failure:
                if refused is None:
                    close_all(loaded)
                    raise
                _log.error("model is left out", extra={"fields": {"model": name, "reason": str(failure)}})
                refused[name], last = str(failure), failure
            except EdgevisionError:
                close_all(loaded)
                raise  # the journal still says what was being loaded
        if last is not None and not loaded and not all_may_fail:
            raise last
        self._doing("")
        return loaded

    def group(self, config: Config, name: str, loaded: Loaded) -> ModelGroup:
        """The model with its cameras in place."""
        frame_s = loaded.warm_s * loaded.model.most_passes
        group = ModelGroup(
            name,
            loaded.model,
            composer=self.composer,
            publish=self.publish,
            clock=self.clock,
            board=self.board,
            deadline_s=config.supervision.inference_deadline_s or max(SHORTEST_DEADLINE_S, WARM_TIMES * frame_s),
            state_dir=config.state_dir,
            tallies=self.tallies,
        )
        for section in sections_of(name, config.cameras):
            group.add(section)
        return group

    def _doing(self, part: str) -> None:
        if self.journal is not None:
            self.journal.doing(part)

    def _load(self, config: Config, name: str) -> Loaded:
        section = config.models[name]
        settings = assembly.settings_for(section, sections_of(name, config.cameras))
        limits = config.supervision
        prober = (
            None
            if section.probe == "never"
            else assembly.Prober(
                state_dir=config.state_dir,
                deadline_s=limits.probe_deadline_s,
                memory_bytes=limits.probe_memory_mb << 20 if limits.probe_memory_mb else None,
            )
        )
        model = assembly.load_model(section.model, settings=settings, models_dir=config.models_dir, prober=prober)
        try:
            # Loading has run it once, with all that happens only then; this pass is what a warm one takes.
            began_ns = self.clock.monotonic_ns()
            model.warm_up()
            warm_s = (self.clock.monotonic_ns() - began_ns) / 1e9
        except EdgevisionError:
            model.close()
            raise
        fields = {
            "model": model.name,
            "version": model.manifest.version,
            "backend": model.backend_name,
            "threads": model.threads,
            "proved": model.manifest.proved,
            "warm_ms": round(warm_s * 1e3, 1),
        }
        told = execution_of(model)
        if told is not None:
            fields["runs_on"] = ", ".join(f"{where} {share:.1%}" for where, share in told.shares.items())
        _log.info("model is ready", extra={"fields": fields})
        if told is not None:
            reasons = [*told.notes, *(f"without {where}: {why}" for where, why in told.left_out.items())]
            for reason in [*reasons, *([told.building] if told.building else [])]:
                _log.warning("where the model runs", extra={"fields": {"model": model.name, "reason": reason}})
        return Loaded(model=model, warm_s=warm_s)


def is_replaced(model: Model, name: str, models_dir: Path | None) -> bool:
    """Whether the model that a name or folder stands for is another than this one, which was loaded from it.

    A folder that cannot be read counts as another: loading says what is wrong with it.
    """
    try:
        folder = model_store.find(name, models_dir)
        return folder.manifest != model.manifest or tuple(model_store.labels(folder)) != tuple(model.labels)
    except EdgevisionError:
        return True


def close_all(loaded: Mapping[str, Loaded]) -> None:
    """Let go of what is not wanted after all."""
    for one in loaded.values():
        one.model.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A model, and how long one warm inference with all around it took, in seconds."""

    model: Model
    warm_s: float
