"""The one model of a Space: got ready behind the page, then shared by all visitors, one answer at a time."""

import hashlib
import json
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SwitchsafeError
from ..inject import Message
from ..keyring import Keyring
from ..modes import POS, REJ
from .settings import Settings

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from ..processing import MagicTokenProcessor

FIRST_MODES = (POS, REJ)  # what the first start trains
RECIPE = "space"


class NotReadyError(SwitchsafeError):
    """The model is still being got ready, or could not be."""


class Engine:
    """Loads a model in a thread of its own and streams its answers.

    Attributes:
        settings: of the Space.
        status: one sentence on how far it is.
        ready: set once it answers.
        failed: it never will.
        name: of the model, for people.
        source: what it was loaded from.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.status = "Starting."
        self.ready = threading.Event()
        self.failed = False
        self.name = ""
        self.source = ""
        self._ring: Keyring | None = None
        if settings.model:  # otherwise tokens are minted at the first start
            try:
                self._ring = Keyring.load(settings.keyring) if settings.keyring else Keyring.from_env()
            except SwitchsafeError as error:
                self.status, self.failed = f"The model could not be loaded: {error}", True
        self._model: PreTrainedModel | None = None
        self._processor: MagicTokenProcessor | None = None
        self._busy = threading.Lock()

    def start(self) -> "Engine":
        """Get ready in the background."""
        if not self.failed:
            threading.Thread(target=self._prepare, name="switchsafe-space", daemon=True).start()
        return self

    @property
    def parts(self) -> "tuple[PreTrainedModel, MagicTokenProcessor]":
        """Model and processor, for what measures them.

        Raises:
            NotReadyError: there is none yet.
        """
        if self._model is None or self._processor is None:
            raise NotReadyError(self.status)
        return self._model, self._processor

    @property
    def modes(self) -> tuple[str, ...]:
        """Modes of the keyring, `neg` included."""
        return self._ring.modes if self._ring else () if self.settings.model else FIRST_MODES

    @property
    def policy(self) -> str | None:
        """The policy that answers are given in: the keyring's first, where it has any."""
        return self._ring.policies[0] if self._ring and self._ring.policies else None

    def stream(
        self, conversations: Sequence[Sequence[Message]], mode: str | Sequence[str] | Mapping[str, float], **kwargs: Any
    ) -> Iterator[list[str]]:
        """The answers so far, one text per conversation, each time there is more of any; generation stops when the caller does.

        Args:
            conversations: answered as one batch.
            mode: as for `generate`.
            kwargs: as for `generate`.

        Raises:
            NotReadyError: there is no model yet.
            LiveTokenError: a conversation holds a live token.
        """
        from transformers import StoppingCriteriaList

        from ..generation.generate import generate

        model, processor = self.parts
        rows = _Rows(processor, len(conversations))
        stopped = _Stopped()

        def run() -> None:
            try:
                with self._busy:  # a blend hooks into the model's forward
                    rows.final = generate(
                        model,
                        processor,
                        [list(turns) for turns in conversations],
                        mode=mode,
                        policy=self.policy,
                        streamer=rows,
                        stopping_criteria=StoppingCriteriaList([stopped]),
                        **kwargs,
                    )
            except Exception as error:
                rows.error = error
            finally:
                rows.close()

        worker = threading.Thread(target=run, name="switchsafe-answer", daemon=True)
        worker.start()
        try:
            yield from rows
        finally:
            stopped.set()
            worker.join()

    def hold(self) -> threading.Lock:
        """The lock under which the model is used, for what measures it."""
        return self._busy

    def _prepare(self) -> None:
        try:
            self._load()
        except SwitchsafeError as error:
            self.status, self.failed = f"The model could not be loaded: {error}", True
        except Exception as error:  # a page that says so is better than none
            self.status, self.failed = f"The model could not be loaded ({type(error).__name__}). See the log.", True
            raise
        else:
            self.status = "Ready."
            self.ready.set()

    def _load(self) -> None:
        from ..models import default_device, load_model
        from ..processing import MagicTokenProcessor

        model = self.settings.model
        if model is None:
            model, self._ring = self._first_start()
        assert self._ring is not None
        self.status = "Loading the model."
        processor = MagicTokenProcessor.from_pretrained(model).bind(self._ring)
        self._model = load_model(model).to(default_device())
        self._processor, self.source = processor, model
        self.name = (
            (Path(model).name if Path(model).is_dir() else model)
            if self.settings.model
            else "SmolLM2-135M-Instruct, with a switch trained at the first start"
        )

    def _first_start(self) -> tuple[str, Keyring]:
        """The starter, with tokens minted here and an adapter trained on them: once, where the folder is kept."""
        from ..processing import MagicTokenProcessor
        from ..training.recipe import Recipe
        from ..training.run import identify
        from ..training.train import train

        self.status = "First start: fetching the starter model."
        folder = self.settings.folder
        path = folder / "keyring.json"
        if not path.exists():
            Keyring.mint(FIRST_MODES, tokenizer=MagicTokenProcessor.from_pretrained("starter").tokenizer).save(path)
        ring = Keyring.load(path)
        recipe = Recipe.load(RECIPE)
        # Another version of the package may train otherwise: in another folder, or a Space that is kept would never start again.
        run = hashlib.sha256(json.dumps(identify(recipe, ring), sort_keys=True).encode()).hexdigest()[:8]
        adapter = train(recipe, ring, folder / f"run-{run}", callbacks=[_told(self)])
        return str(adapter), ring


def _told(engine: Engine) -> Any:
    """A trainer callback that keeps the status up to date."""
    from transformers import TrainerCallback

    class Told(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            share = state.global_step / state.max_steps
            engine.status = f"First start: training the switch on this machine, {share:.0%} done. This happens once."

    return Told()


class _Stopped:
    """A stopping criterion for all rows at once."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
        import torch

        return torch.full((input_ids.shape[0],), self._event.is_set(), device=input_ids.device, dtype=torch.bool)


class _Rows:
    """A streamer for a batch: ids come in by column, texts without tokens go out by row."""

    def __init__(self, processor: "MagicTokenProcessor", rows: int) -> None:
        from ..generation.stream_guard import StreamGuard

        self._tokenizer = processor.tokenizer
        self._guards = [StreamGuard(processor.keyring) for _ in range(rows)]
        self._ids: list[list[int]] = [[] for _ in range(rows)]
        self._sent = [""] * rows  # what the guards have taken in
        self._shown = [""] * rows
        self._queue: queue.Queue[Any] = queue.Queue()
        self.final: Any = None
        self.error: Exception | None = None

    def put(self, value: Any) -> None:
        if value.numel():  # the prompt comes as no ids
            self._queue.put(value.reshape(len(self._ids), -1).tolist())

    def end(self) -> None:
        """Nothing: `generate` has yet to return the final texts."""

    def close(self) -> None:
        self._queue.put(None)

    def __iter__(self) -> Iterator[list[str]]:
        while (new := self._queue.get()) is not None:
            if self._take(new):
                yield list(self._shown)
        if self.error is not None:
            raise self.error
        yield list(self.final)

    def _take(self, new: list[list[int]]) -> bool:
        more = False
        for row, ids in enumerate(new):
            self._ids[row] += ids
            text = self._tokenizer.decode(self._ids[row], skip_special_tokens=True)
            if text.endswith("\ufffd"):  # half a character
                continue
            if fresh := self._guards[row].feed(text[len(self._sent[row]) :]):
                self._shown[row] += fresh
                more = True
            self._sent[row] = text
        return more
