"""Mode confusion: the mode asked for against the mode got."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..data.triplets import Triplet
from ..judges.mode import ModeJudge
from ..processing import MagicTokenProcessor
from .answers import answer

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

    def to_markdown(self) -> str:
        """The counts as a table."""
        modes = list(self.counts)
        lines = [f"| asked \\ got | {' | '.join(modes)} | mode accuracy |", "|---" * (len(modes) + 2) + "|"]
        lines += [
            f"| {asked} | {' | '.join(str(row[got]) for got in modes)} | {self.accuracy[asked]:.1%} |"
            for asked, row in self.counts.items()
        ]
        return "\n".join(lines)


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
    asked = [(t.prompt, processor.keyring.token(mode, t.policy)) for mode in modes for t in triplets]
    texts = answer(
        model,
        processor,
        asked,
        max_new_tokens=max_new_tokens,
        batch_size=batch_size,
        label="Answering in each mode",
    )
    answers = {mode: texts[i * len(triplets) : (i + 1) * len(triplets)] for i, mode in enumerate(modes)}
    counts = {}
    for mode, given in answers.items():
        got = judge.classify(given)
        counts[mode] = {other: got.count(other) for other in modes}
    return ConfusionReport(counts, answers)
