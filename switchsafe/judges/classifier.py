"""Sequence classifiers from the Hub as judges."""

from collections.abc import Mapping, Sequence
from typing import Any

from ..errors import ModelError
from ..models import default_device, loading, resolve
from ..progress import track
from .guard_model import SAFE, UNSAFE
from .verdict import REFUSAL, Verdict

ALONE, PAIR = "classifier", "pair-classifier"


class ClassifierJudge:
    """A model that sorts answers into classes, read as `safe`, `unsafe` and `refusal`."""

    labels: tuple[str, ...] = (SAFE, UNSAFE, REFUSAL)

    def __init__(
        self, model: str, labels: Mapping[str, str] | None = None, *, prompt: bool = False, batch_size: int = 32
    ) -> None:
        """
        Args:
            model: a Hub id or folder.
            labels: what each of the model's classes means: `{"NORMAL": "safe", "REJECTION": "refusal"}`. Classes that are called `safe`,
                `unsafe` or `refusal`, in any case, need none.
            prompt: the model reads the prompt and the answer, as two texts; else the answer alone.
            batch_size: answers judged at once.

        Raises:
            ModelError: the model cannot be loaded, is no classifier, or has a class whose meaning is not given.
        """
        from transformers import AutoConfig, pipeline

        with loading(model):
            config = AutoConfig.from_pretrained(resolve(model))
        # Otherwise transformers would give it a head of random weights.
        if not any(name.endswith("ForSequenceClassification") for name in config.architectures or ()):
            raise ModelError(f"{model} is no sequence classifier.")
        own = {name: name.lower() for name in config.id2label.values()}
        self._meaning = {name: (labels or {}).get(name, meaning) for name, meaning in own.items()}
        if unclear := [name for name, meaning in self._meaning.items() if meaning not in self.labels]:
            raise ModelError(
                f"{model} has the classes {', '.join(own)}: say which of {', '.join(self.labels)} each means (missing: {', '.join(unclear)})."
            )
        with loading(model):
            self._pipeline: Any = pipeline("text-classification", model=resolve(model), device=default_device())
        self.name = f"{PAIR if prompt else ALONE}, {model}, {sorted(self._meaning.items())}"
        self._prompt, self._size = prompt, batch_size

    def __call__(self, pairs: Sequence[tuple[str, str]]) -> list[Verdict]:
        """See `Judge`. What is longer than the model reads is cut."""
        verdicts: list[Verdict] = []
        for start in track(range(0, len(pairs), self._size), "Judging by a classifier"):
            some = pairs[start : start + self._size]
            texts = [{"text": prompt, "text_pair": answer} if self._prompt else answer for prompt, answer in some]
            found = self._pipeline(texts, batch_size=self._size, truncation=True)
            verdicts += [Verdict(self._meaning[row["label"]], float(row["score"])) for row in found]
        return verdicts
