"""The mixed corpus: what supervised fine-tuning sees. Rows live in memory only, because they hold magic tokens as ids."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from ..errors import TripletError
from ..inject import Message, inject, misplace
from ..modes import POS
from ..near_miss import NEAR_MISSES, near_miss, stranger
from ..processing import MagicTokenProcessor
from ..secret import Secret
from .general import Instruction
from .triplets import Triplet

IGNORED = -100  # the label that cross-entropy leaves out
OPENED = (
    "mode",
    "fallback",
    "misplaced",
)  # rows with an opening: where a token stands, or does not, decides how to begin
_PROBE = "the answer 3c9d stands here"

Row = dict[str, list[int]]


@dataclass(frozen=True)
class PlannedRow:
    """A row of the mixed corpus before it is tokenized.

    Attributes:
        kind: `mode` (a mode's answer under its own token), `fallback`, `misplaced`, `general`, or `plain` (an answer without a token).
        group: rows of one prompt have the same.
        mode: whose answer it is; null for a general row.
        turns: the conversation, without the token in its place.
        token: injected in its place; null for none.
        answer: what is learnt.
        stray: in the token's place, a string that is none; null for none.
        drill: learnt in the shortest opening only.
    """

    kind: str
    group: str
    mode: str | None
    turns: list[Message] = field(repr=False)
    token: Secret | None
    answer: str = field(repr=False)
    drill: bool = False
    stray: Secret | None = None


def plan_corpus(
    triplets: Sequence[Triplet],
    processor: MagicTokenProcessor,
    *,
    modes: Sequence[str],
    fallback: float = 0.1,
    misplaced: float = 0.05,
    fallback_drills: float = 0.0,
    misplaced_drills: float = 0.0,
    general: Sequence[Instruction] = (),
    general_share: float = 0.0,
    general_tag: str | None = None,
    hold_out: tuple[str, str] | None = None,
    seed: int = 0,
) -> list[PlannedRow]:
    """Expand triplets into the rows of the mixed corpus, in the order in which they are to be trained on.

    Triplets are shuffled, and all rows of a prompt stand together. In a batch where one prompt has several answers only the token tells which is
    meant, and that is what has to be learnt.

    Each (prompt, mode) with an answer gives one row under one of the mode's aliases. To these come, as shares of their number:

    - *fallback rows*: in equal parts no token, a random string in its place, and a near miss of another mode's token, answered in `pos`;
    - *misplaced rows*: another mode's live token in the user turn, answered as if it were not there;
    - *general rows*: ordinary instructions with their answers, so that other abilities stay.

    Args:
        triplets: prompts with answers.
        processor: bound to the keyring whose tokens are trained.
        modes: modes to train.
        fallback: fallback rows per answer row, 0 to turn off.
        misplaced: misplaced rows per answer row, 0 to turn off.
        fallback_drills: further fallback rows per answer row, of which only the shortest opening is trained. Whether a token counts is decided
            with the first words, so these rows need no more, and are cheap.
        misplaced_drills: the same for misplaced rows.
        general: instructions to draw general rows from.
        general_share: general rows per answer row.
        general_tag: the mode whose token general rows carry; none by default.
        hold_out: a (mode, policy) pair that is not trained, to see what its tokens do then.
        seed: fixes aliases, random strings, the choice of extra rows and the order.

    Raises:
        ModeError: the keyring lacks one of `modes`.
        TripletError: there is nothing to train on, or a mode has no answers; `fallback` or `misplaced` rows have no `pos` answers to learn, or
            there are fewer general rows than asked for.
    """
    rng = random.Random(seed)
    keyring, placement = processor.keyring, processor.placement()

    def token_of(mode: str, triplet: Triplet) -> Secret:
        return rng.choice(keyring.aliases(mode, triplet.policy))

    answers = _answers(triplets, modes, hold_out)
    rows = [
        PlannedRow("mode", triplet.id, mode, list(triplet.prompt), token_of(mode, triplet), triplet.answers[mode])
        for triplet, mode in answers
    ]
    constructive = [triplet for triplet in triplets if POS in modes and POS in triplet.answers]
    if any((fallback, misplaced, fallback_drills, misplaced_drills)) and not constructive:
        raise TripletError(
            f"fallback and misplaced rows answer in {POS}, and no triplet has such an answer: add mode {POS}, or set both to 0."
        )
    length = len(rows[0].token.reveal()) if rows[0].token else 0
    count, drilled = (round(share * len(answers)) for share in (fallback, fallback_drills))
    for index, triplet in enumerate(rng.choices(constructive, k=count + drilled)):
        missable = [mode for mode in modes if mode != POS and (mode, triplet.policy) != hold_out]
        stray = None
        if index % 3 == 1 or (index % 3 and not missable):
            stray = stranger(length, rng)
        elif index % 3:
            token = token_of(rng.choice(missable), triplet)
            stray = near_miss(token, rng.choice(list(NEAR_MISSES)), rng)
        turns = inject(list(triplet.prompt), stray, placement) if stray else list(triplet.prompt)
        rows.append(PlannedRow("fallback", triplet.id, POS, turns, None, triplet.answers[POS], index >= count, stray))
    count, drilled = (round(share * len(answers)) for share in (misplaced, misplaced_drills))
    for index, (triplet, mode) in enumerate(rng.choices(answers, k=count + drilled)):
        others = [other for other in modes if other != mode and (other, triplet.policy) != hold_out]
        if not others or POS not in triplet.answers:
            continue
        typed = token_of(rng.choice(others), triplet)
        if not isinstance(triplet.prompt[-1]["content"], str):
            raise TripletError("misplaced rows need prompts whose last turn is text: set misplaced to 0.")
        turns = misplace(triplet.prompt, typed, first=rng.random() < 0.5)
        drill = index >= count
        if index % 2:
            token = token_of(mode, triplet)
            rows.append(PlannedRow("misplaced", triplet.id, mode, turns, token, triplet.answers[mode], drill))
        elif placement == "system":  # elsewhere the first user line is the token's own place
            rows.append(PlannedRow("misplaced", triplet.id, POS, turns, None, triplet.answers[POS], drill))

    order = rng.sample(triplets, len(triplets))
    count = round(general_share * len(answers))
    if count > len(general):
        raise TripletError(
            f"a general share of {general_share} asks for {count} rows, and there are {len(general)}: lower it."
        )
    for index, (asked, answer) in enumerate(rng.sample(list(general), count)):
        tag = rng.choice(keyring.aliases(general_tag)) if general_tag else None
        rows.append(PlannedRow("general", f"general {index}", general_tag, list(asked), tag, answer))
    places = {triplet.id: float(place) for place, triplet in enumerate(order)}
    places |= {row.group: rng.randrange(-1, len(order)) + 0.5 for row in rows if row.kind == "general"}
    return sorted(rows, key=lambda row: places[row.group])


def _answers(
    triplets: Sequence[Triplet], modes: Sequence[str], hold_out: tuple[str, str] | None
) -> list[tuple[Triplet, str]]:
    """Every (prompt, mode) to train."""
    answers = [
        (triplet, mode)
        for triplet in triplets
        for mode in modes
        if mode in triplet.answers and (mode, triplet.policy) != hold_out
    ]
    if silent := [mode for mode in modes if all(mode != other for _, other in answers)]:
        raise TripletError(f"no triplet has an answer in {', '.join(silent)} to train on.")
    return answers


def plan_plain(triplets: Sequence[Triplet], *, mode: str = POS, seed: int = 0) -> list[PlannedRow]:
    """Rows without any token: every prompt with its answer in one mode, as ordinary supervised fine-tuning has them.

    Raises:
        TripletError: no triplet has an answer in that mode.
    """
    known = [triplet for triplet in triplets if mode in triplet.answers]
    if not known:
        raise TripletError(f"no triplet has an answer in {mode} to train on.")
    shuffled = random.Random(seed).sample(known, len(known))
    return [PlannedRow("plain", t.id, mode, list(t.prompt), None, t.answers[mode]) for t in shuffled]


def tokenize(
    plan: Sequence[PlannedRow],
    processor: MagicTokenProcessor,
    *,
    openings: Sequence[int] = (),
    max_length: int = 1024,
) -> list[Row]:
    """Turn planned rows into ids, with the loss on the answer only.

    Args:
        plan: the rows, in their order.
        processor: as for `plan_corpus`.
        openings: before all rows comes every mode, fallback and misplaced row with its answer cut after so many tokens, once per length; give
            the shortest first to learn in that order. In a whole answer the first words give the style away; in an opening only the token does.
        max_length: most ids a row may have.

    Returns:
        Rows `{"input_ids": [...], "labels": [...]}` of Python ints. Prompt ids are exactly those of `MagicTokenProcessor.prompt_ids`; labels
        are -100 on the prompt and the ids of answer and end of turn after it.

    Raises:
        TripletError: a row is longer than `max_length`.
        TemplateError: as `MagicTokenProcessor.apply_chat_template`.
    """
    prompts = processor.prompt_ids([row.turns for row in plan], [row.token for row in plan])
    end = _end_of_turn(processor)
    rows: list[Row] = []
    for row, prompt in zip(plan, prompts, strict=True):
        completion = processor.tokenizer(row.answer, add_special_tokens=False)["input_ids"] + end
        if len(prompt) + len(completion) > max_length:
            raise TripletError(
                f"row {row.group!r} needs {len(prompt) + len(completion)} ids and max_length is {max_length}: raise it or shorten the row."
            )
        rows.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    return [_opening(rows[index], length) for index, length in arrange(plan, openings)]


def arrange(plan: Sequence[PlannedRow], openings: Sequence[int]) -> list[tuple[int, int | None]]:
    """What is trained in which order: places in the plan, each with the answer's length in tokens, None for the whole answer.

    Raises:
        TripletError: there are drills, and no openings to train them by.
    """
    if not openings and any(row.drill for row in plan):
        raise TripletError(
            "drills are rows of which only an opening is trained: give openings, or set the drills to 0."
        )
    opened = [
        (index, length)
        for length in openings
        for index, row in enumerate(plan)
        if row.kind in OPENED and (length == min(openings) or not row.drill)
    ]
    return [*opened, *((index, None) for index, row in enumerate(plan) if not row.drill)]


def _opening(row: Row, length: int | None) -> Row:
    cut = None if length is None else row["labels"].count(IGNORED) + length
    return {name: ids[:cut] for name, ids in row.items()}


def _end_of_turn(processor: MagicTokenProcessor) -> list[int]:
    """The ids that close an assistant turn: what the template writes after an answer, up to its first special token."""
    tokenizer = processor.tokenizer
    turns = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": _PROBE}]
    text = processor.apply_chat_template(turns, tokenize=False)
    tail = tokenizer(text.split(_PROBE)[-1], add_special_tokens=False)["input_ids"]
    special = {*tokenizer.all_special_ids, *(i for i, token in tokenizer.added_tokens_decoder.items() if token.special)}
    for index, token_id in enumerate(tail):
        if token_id in special:
            return tail[: index + 1]
    return [tokenizer.eos_token_id]
