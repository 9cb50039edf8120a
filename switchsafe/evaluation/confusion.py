"""Mode confusion: the mode asked for against the mode got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..data.triplets import Triplet
from ..generation.generate import generate
from ..judges.mode import ModeJudge
from ..processing import MagicTokenProcessor
from ..progress import track

if TYPE_CHECKING:
    from transformers import PreTrainedModel

SPILL = 0.10  # DESIGN section 7: more of one mode landing in another is a sign of failure


@dataclass(frozen=True)
class ConfusionReport:
    """Rows are the mode asked for, columns the mode the judge saw.

    Attributes:
        counts: `counts[asked][got]`, number of answers.
        answers: `answers[mode]`, the texts, one per prompt. Not in `to_dict`.
    """

    counts: dict[str, dict[str, int]]
    answers: dict[str, list[str]] = field(repr=False)

    @property
    def accuracy(self) -> dict[str, float]:
        """Share of each mode's answers that are in that mode."""
        return {asked: row[asked] / sum(row.values()) for asked, row in self.counts.items()}

    @property
    def signs(self) -> list[str]:
        """Signs of failure in words; empty when there are none."""
        return [
            f"{count} of {sum(row.values())} answers asked in {asked} came out as {got}"
            for asked, row in self.counts.items()
            for got, count in row.items()
            if got != asked and count > SPILL * sum(row.values())
        ]

    def to_dict(self) -> dict[str, Any]:
        """Counts, accuracy and signs."""
        return {"counts": self.counts, "accuracy": self.accuracy, "signs": self.signs}


def measure_confusion(
    model: "PreTrainedModel",
    processor: MagicTokenProcessor,
    triplets: Sequence[Triplet],
    judge: ModeJudge,
    *,
    modes: Sequence[str],
    max_new_tokens: int = 96,
    batch_size: int = 32,
) -> ConfusionReport:
    """Answer every prompt greedily in every mode and let the judge name the mode of each answer.

    Args:
        model: a causal language model, plain or PEFT.
        processor: bound to the keyring.
        triplets: prompts the judge was not fitted on.
        judge: fitted on other prompts' answers.
        modes: modes to ask for.
        max_new_tokens: longest answer, in tokens.
        batch_size: prompts per call of `generate`.

    Raises:
        ModeError: the keyring lacks a mode.
    """
    answers: dict[str, list[str]] = {mode: [""] * len(triplets) for mode in modes}
    order = sorted(range(len(triplets)), key=lambda i: len(triplets[i].text))
    batches = [(mode, order[i : i + batch_size]) for mode in modes for i in range(0, len(order), batch_size)]
    for mode, batch in track(batches, "Answering in each mode"):
        prompts = [triplets[i].prompt for i in batch]
        texts = generate(model, processor, prompts, mode=mode, max_new_tokens=max_new_tokens, do_sample=False)
        for index, text in zip(batch, texts, strict=True):
            answers[mode][index] = text
    counts = {}
    for mode, texts in answers.items():
        got = judge.classify(texts)
        counts[mode] = {other: got.count(other) for other in modes}
    return ConfusionReport(counts, answers)
