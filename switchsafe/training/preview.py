"""What the model will see, in words, with every token redacted."""

import random
from dataclasses import dataclass

from ..data.corpus import IGNORED, PlannedRow, Row, arrange
from ..keyring import Keyring
from ..processing import MagicTokenProcessor
from ..redaction import redact
from .recipe import Recipe
from .run import triplets_of
from .trainers import plan_rows, tokenized


@dataclass(frozen=True)
class PreviewRow:
    """One row of the mixed corpus.

    Attributes:
        kind: see `PlannedRow`; `opening` and `drill` for the first tokens of an answer.
        mode: whose answer it is; null where there is none.
        seen: what the model reads, tokens shown as `[token FINGERPRINT]`, random strings and near misses in their place as `[no token]`.
        learnt: what it is trained to say.
        ids: number of token ids.
    """

    kind: str
    mode: str | None
    seen: str
    learnt: str
    ids: int


@dataclass(frozen=True)
class Preview:
    """How many rows of each kind a recipe trains on, and some of each.

    Attributes:
        counts: rows by kind.
        ids: ids of all rows together.
        learnt: ids with a loss.
        longest: ids of the longest row.
        rows: some of every kind.
    """

    counts: dict[str, int]
    ids: int
    learnt: int
    longest: int
    rows: list[PreviewRow]


def preview(recipe: Recipe, keyring: Keyring | None, *, each: int = 1) -> Preview:
    """Build the rows of a recipe in memory and show some of them. Needs the tokenizer, not the model.

    Args:
        recipe: not of method `dpo`, whose rows TRL builds.
        keyring: as for `train`.
        each: rows to show of every kind and mode.

    Raises:
        As `train`.
    """
    processor = MagicTokenProcessor.from_pretrained(recipe.adapter or recipe.model)
    if keyring is not None:
        processor.bind(keyring)
    plan = plan_rows(recipe, processor, triplets_of(recipe))
    rows = tokenized(recipe, processor, plan)
    kinds = [
        ("drill" if plan[index].drill else plan[index].kind if length is None else "opening", plan[index])
        for index, length in arrange(plan, recipe.corpus.get("openings", ()))
    ]
    groups: dict[tuple[str, str | None], list[int]] = {}
    for index, (kind, planned) in enumerate(kinds):
        groups.setdefault((kind, planned.mode), []).append(index)
    dice = random.Random(recipe.seed)
    chosen = [index for found in groups.values() for index in dice.sample(found, min(each, len(found)))]
    counts: dict[str, int] = {}
    for kind, _ in kinds:
        counts[kind] = counts.get(kind, 0) + 1
    return Preview(
        counts=counts,
        ids=sum(len(row["input_ids"]) for row in rows),
        learnt=sum(len(row["labels"]) - row["labels"].count(IGNORED) for row in rows),
        longest=max(len(row["input_ids"]) for row in rows),
        rows=[_shown(processor, kinds[index][0], kinds[index][1], rows[index]) for index in chosen],
    )


def _shown(processor: MagicTokenProcessor, kind: str, planned: PlannedRow, row: Row) -> PreviewRow:
    start = row["labels"].count(IGNORED)
    seen, learnt = (
        redact(processor.tokenizer.decode(ids)) for ids in (row["input_ids"][:start], row["input_ids"][start:])
    )
    if planned.stray:  # a near miss gives most of a token away
        seen = seen.replace(planned.stray.reveal(), "[no token]")
    return PreviewRow(kind, planned.mode, seen, learnt, len(row["input_ids"]))
