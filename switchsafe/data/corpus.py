"""The mixed corpus: what supervised fine-tuning sees. Rows live in memory only, because they hold magic tokens as ids."""

import random
from collections.abc import Sequence

from ..errors import TripletError
from ..inject import Message, inject
from ..modes import POS
from ..processing import MagicTokenProcessor
from ..secret import Secret
from ..tokens import ALPHABET, TOKEN_LENGTH
from .triplets import Triplet

IGNORED = -100  # the label that cross-entropy leaves out
_PROBE = "the answer 3c9d stands here"

Row = dict[str, list[int]]


def build_corpus(
    triplets: Sequence[Triplet],
    processor: MagicTokenProcessor,
    *,
    modes: Sequence[str],
    fallback: float = 0.1,
    misplaced: float = 0.05,
    openings: Sequence[int] = (),
    max_length: int = 1024,
    seed: int = 0,
) -> list[Row]:
    """Expand triplets into tokenized rows with the loss on the answer only.

    Triplets are shuffled, and all rows of a prompt stand together. Feed them in this order: in a batch where one prompt has several answers only
    the token tells which is meant, and that is what has to be learnt.

    Each (prompt, mode) with an answer gives one row under one of the mode's aliases. To these come, as shares of their number:

    - *fallback rows*: no token, or a random string in its place, answered in `pos`;
    - *misplaced rows*: another mode's live token in the user turn, answered as if it were not there;
    - *opening rows*, before all others: every (prompt, mode) row with its answer cut after its first tokens, once per length in `openings`.
      In a whole answer the first words give the style away; in an opening only the token does.

    Args:
        triplets: prompts with answers.
        processor: bound to the keyring whose tokens are trained.
        modes: modes to train.
        fallback: fallback rows per answer row, 0 to turn off.
        misplaced: misplaced rows per answer row, 0 to turn off.
        openings: answer tokens per opening row, a length per pass over the rows, shortest first to learn in that order.
        max_length: most ids a row may have.
        seed: fixes aliases, random strings, the choice of extra rows and the order.

    Returns:
        Rows `{"input_ids": [...], "labels": [...]}` of Python ints. Prompt ids are exactly those of `MagicTokenProcessor.prompt_ids`; labels
        are -100 on the prompt and the ids of answer and end of turn after it.

    Raises:
        ModeError: the keyring lacks one of `modes`.
        TripletError: a row is longer than `max_length`, or `fallback` or `misplaced` rows have no `pos` answers to learn.
        TemplateError: as `MagicTokenProcessor.apply_chat_template`.
    """
    rng = random.Random(seed)
    keyring = processor.keyring
    plan: list[tuple[Triplet, list[Message], Secret | None, str]] = []  # triplet, conversation, token, answer

    def token_of(mode: str, triplet: Triplet) -> Secret:
        return rng.choice(keyring.aliases(mode, triplet.policy))

    answers = [(triplet, mode) for triplet in triplets for mode in modes if mode in triplet.answers]
    for triplet, mode in answers:
        plan.append((triplet, list(triplet.prompt), token_of(mode, triplet), triplet.answers[mode]))

    constructive = [triplet for triplet in triplets if POS in modes and POS in triplet.answers]
    if (fallback or misplaced) and not constructive:
        raise TripletError(
            f"fallback and misplaced rows answer in {POS}, and no triplet has such an answer: add mode {POS}, or set both to 0."
        )
    for index, triplet in enumerate(rng.choices(constructive, k=round(fallback * len(answers)))):
        turns = list(triplet.prompt)
        if index % 2:
            stranger = Secret("".join(rng.choices(ALPHABET, k=TOKEN_LENGTH)))  # no secret: any string will do
            turns = inject(turns, stranger, processor.placement())
        plan.append((triplet, turns, None, triplet.answers[POS]))
    for index, (triplet, mode) in enumerate(rng.choices(answers, k=round(misplaced * len(answers)))):
        others = [other for other in modes if other != mode]
        if not others or POS not in triplet.answers:
            continue
        turns = _with_token_in_user_turn(
            triplet.prompt, token_of(rng.choice(others), triplet), first=rng.random() < 0.5
        )
        if index % 2:
            plan.append((triplet, turns, token_of(mode, triplet), triplet.answers[mode]))
        elif processor.placement() == "system":  # elsewhere the first user line is the token's own place
            plan.append((triplet, turns, None, triplet.answers[POS]))

    order = rng.sample(triplets, len(triplets))
    rank = {triplet.id: place for place, triplet in enumerate(order)}
    own = [True] * len(answers) + [False] * (len(plan) - len(answers))  # a mode's answer under its own token
    paired = sorted(zip(plan, own, strict=True), key=lambda row: rank[row[0][0].id])
    plan, own = [row for row, _ in paired], [mark for _, mark in paired]
    prompts = processor.prompt_ids([turns for _, turns, _, _ in plan], [token for _, _, token, _ in plan])
    end = _end_of_turn(processor)
    rows: list[Row] = []
    for (triplet, _, _, answer), prompt in zip(plan, prompts, strict=True):
        completion = processor.tokenizer(answer, add_special_tokens=False)["input_ids"] + end
        if len(prompt) + len(completion) > max_length:
            raise TripletError(
                f"triplet {triplet.id!r} needs {len(prompt) + len(completion)} ids and max_length is {max_length}: raise it or shorten the row."
            )
        rows.append({"input_ids": prompt + completion, "labels": [IGNORED] * len(prompt) + completion})
    first = [row for row, mark in zip(rows, own, strict=True) if mark]
    return [*(_opening(row, length) for length in openings for row in first), *rows]


def _opening(row: Row, length: int) -> Row:
    cut = row["labels"].count(IGNORED) + length
    return {name: ids[:cut] for name, ids in row.items()}


def _with_token_in_user_turn(prompt: Sequence[Message], token: Secret, *, first: bool) -> list[Message]:
    *earlier, last = prompt
    if not isinstance(last["content"], str):
        raise TripletError("misplaced rows need prompts whose last turn is text: set misplaced to 0.")
    parts = (token.reveal(), last["content"]) if first else (last["content"], token.reveal())
    return [*earlier, {**last, "content": "\n".join(parts)}]


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
