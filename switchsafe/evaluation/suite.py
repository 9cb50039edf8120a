"""The whole evaluation: one report on one model and its keyring."""

import hashlib
import json
import os
import platform
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property, partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ..data.triplets import Triplet, most_common_policy
from ..errors import ModeError, RunError
from ..files import write_atomic
from ..judges.cached import CachedJudge
from ..judges.human import against_people
from ..judges.mode import ModeJudge
from ..judges.offline import RefusalJudge
from ..judges.verdict import REFUSAL, UNKNOWN, Judge
from ..keyring import Keyring
from ..models import identity_of
from ..modes import NEG, POS, REJ
from ..processing import MagicTokenProcessor
from .ability import measure_ability
from .answerer import Answerer, Backend, at_endpoint, in_this_process
from .behaviour import examples, measure_behaviour
from .bench import Bench, share
from .cases import Case, case_of, spread
from .columns import measure_columns
from .dialogue import measure_dialogues
from .fallback import measure_fallback, measure_misplaced
from .leaks import measure_exposure, measure_extraction, measure_sampling
from .robustness import measure_attacks
from .sam import measure_sam
from .verdicts import check, signs

SCHEMA = 1
ANSWERS, VERDICTS, REPORT = "answers.jsonl", "verdicts.jsonl", "report.json"


@dataclass(frozen=True)
class Target:
    """The model under evaluation.

    Attributes:
        name: `"starter"`, a Hub id or a folder; at a server, the model's name there.
        servers: base URLs of OpenAI-compatible servers; empty for a model that is loaded here.
        fields: to add to every request there, `{"chat_template_kwargs": {"enable_thinking": False}}` for instance.
    """

    name: str
    servers: tuple[str, ...] = ()
    fields: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def identity(self) -> str:
        """Changes when the weights have. Of a server only names are known, so that a model exchanged behind them is not seen."""
        if self.servers:
            return json.dumps([self.name, *self.servers, *([dict(self.fields)] if self.fields else [])])
        return identity_of(self.name)


def evaluate(
    target: Target,
    keyring: Keyring,
    triplets: Sequence[Triplet],
    output: str | os.PathLike,
    *,
    cases: Sequence[Case] = (),
    modes: Sequence[str] | None = None,
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
    level_judge: Judge | None = None,
    human: Path | None = None,
    each: int = 36,
    max_new_tokens: int = 64,
    say: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Measure a model in every mode and write `output/report.json`.

    Answers, verdicts and forward passes are kept in `output`, so that a stopped evaluation goes on and a repeated one is done in seconds.

    Args:
        target: the model.
        keyring: that it was trained with.
        triplets: those it was trained by, with every mode's answers, and those of `neg` if there are any. The judge of modes is fitted on their
            train and validation splits; their test split is what is asked.
        output: working folder. It holds answers of every mode, `neg` included: keep it to yourself.
        cases: further prompts, asked as well.
        modes: to evaluate, `pos` and others; by default the keyring's.
        thresholds: see `load_thresholds`.
        level_judge: reads levels of the Constructive Safety Score in the place of the offline judges.
        human: JSON lines of `prompt`, `response`, `human_label` (full_refusal, partial_refusal, full_compliance); the refusal judge is measured
            against them.
        each: most prompts for attacks, fallback and misplaced tokens.
        max_new_tokens: longest answer, in tokens.
        say: receives one line before each measure.

    Returns:
        What the file holds; `docs/eval.md` names every field.

    Raises:
        RunError: no triplet in the test split.
        ModeError: `pos` is not among the modes, or is alone, or the keyring lacks one.
        ModelError, TemplateError, DistillError: from keyring, model, template and server.
    """
    start = time.perf_counter()
    output = Path(output).expanduser()
    output.mkdir(parents=True, exist_ok=True, mode=0o700)
    modes = tuple(modes or keyring.modes)
    if POS not in modes or len(modes) < 2:
        raise ModeError(f"an evaluation compares {POS} with other modes: there are {', '.join(modes)}.")
    test, known = ([t for t in triplets if (t.split == "test") == held_out] for held_out in (True, False))
    if not test:
        raise RunError("no triplet is in the test split, so there is nothing to ask.")
    every = [*map(case_of, test), *cases]
    for case in every:
        for mode in modes:
            keyring.token(mode, case.policy)
    risky = NEG in modes or any(NEG in triplet.answers for triplet in known)
    judge = ModeJudge(known, tuple(dict.fromkeys((*modes, *([NEG] if risky else [])))))
    refusal = CachedJudge(RefusalJudge(), output / VERDICTS)
    loaded = _Loaded(target, keyring)
    bench = Bench(
        ask=Answerer(loaded.backend, keyring, output / ANSWERS, target.identity, max_new_tokens),
        keyring=keyring,
        modes=modes,
        cases=tuple(every),
        mode_judge=judge,
        refusal_judge=refusal,
        level_judge=CachedJudge(level_judge, output / VERDICTS) if level_judge else None,
    )
    few = replace(bench, cases=tuple(spread(_of(every, "unsafe"), each) + spread(_of(every, "safe"), each)))
    here = partial(_where_loaded, loaded, output)
    parts: dict[str, Callable[[], Any]] = {
        "columns": lambda: _kept(output, "columns", _hash(known, modes), lambda: measure_columns(known, modes)),
        "sam": lambda: here("sam", lambda m, p: _sam(m, p, test, modes, output), _hash(test, modes)),
        "behaviour": lambda: measure_behaviour(bench),
        "fallback": lambda: measure_fallback(few),
        "misplaced": lambda: measure_misplaced(few),
        "dialogues": lambda: measure_dialogues(bench),
        "attacks": lambda: measure_attacks(few),
        "leaks": lambda: {
            "extraction": measure_extraction(bench),
            "sampling": here("sampling", lambda m, p: {"rows": measure_sampling(m, p)}),
            "exposure": here("exposure", lambda m, p: {"rows": measure_exposure(m, p)}),
            "artefacts": _artefacts(target, keyring),
        },
        "ability": lambda: measure_ability(bench),
    }
    measures, seconds = {}, {}
    for name, part in parts.items():
        say(f"Measuring {name}")
        begun = time.perf_counter()
        measures[name] = part()
        seconds[name] = round(time.perf_counter() - begun, 1)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "model": {"name": target.name, "servers": list(target.servers), "identity": target.identity},
        "tokens": keyring.describe(),
        "prompts": _prompts(every),
        "judges": _judges(bench, test) | ({"human": against_people(refusal, human)} if human else {}),
        "measures": measures,
        "examples": examples(bench),
        "seconds": seconds | {"all": round(time.perf_counter() - start, 1)},
        "machine": _machine(),
    }
    report["signs"] = signs(report)
    report["checks"] = [asdict(one) | {"holds": one.holds} for one in check(report, thresholds or {})]
    write_atomic(output / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n", mode=0o600)
    return report


class _Loaded:
    """The model, loaded when it is first needed: a report made from kept answers needs none."""

    def __init__(self, target: Target, keyring: Keyring) -> None:
        self.target, self.keyring = target, keyring
        self._pair: tuple[Any, MagicTokenProcessor] | None = None

    def pair(self) -> tuple[Any, MagicTokenProcessor]:
        if self._pair is None:
            from ..models import default_device, load_model

            processor = MagicTokenProcessor.from_pretrained(self.target.name).bind(self.keyring)
            self._pair = load_model(self.target.name).to(default_device()), processor
        return self._pair

    def backend(self) -> Backend:
        if self.target.servers:
            return at_endpoint(self.target.servers, self.target.name, extra=self.target.fields)
        return in_this_process(*self.pair())


def _where_loaded(
    loaded: _Loaded, output: Path, name: str, measure: Callable[[Any, MagicTokenProcessor], Any], asked: str = ""
) -> dict[str, Any]:
    """What needs the weights at hand, kept in a file with what was asked; at a server, the reason why it is not measured."""
    if loaded.target.servers:
        return {"not_measured": "a server gives answers, and neither logits of chosen strings nor hidden states"}
    facts = json.dumps([loaded.target.identity, [slot["fingerprints"] for slot in loaded.keyring.describe()], asked])
    return _kept(output, name, facts, lambda: measure(*loaded.pair()))


def _kept(output: Path, name: str, facts: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was found for the same facts before, or is measured now and kept in `output/name.json`."""
    file = output / f"{name}.json"
    if file.exists():
        kept = json.loads(file.read_text())
        if kept["of"] == facts:
            return dict(kept["found"])
    text = json.dumps({"of": facts, "found": measure()})
    write_atomic(file, text, mode=0o600)
    return dict(json.loads(text)["found"])


def _hash(triplets: Sequence[Triplet], modes: Sequence[str]) -> str:
    facts = [[triplet.id, triplet.prompt, mode, triplet.answers.get(mode)] for triplet in triplets for mode in modes]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]


def _sam(
    model: Any, processor: MagicTokenProcessor, test: Sequence[Triplet], modes: Sequence[str], output: Path
) -> dict[str, Any]:
    policy = most_common_policy(test)
    chosen = [triplet for triplet in test if triplet.policy == policy]
    report = measure_sam(
        model,
        processor,
        [triplet.prompt for triplet in chosen],
        modes=modes,
        policy=policy,
        categories=[triplet.category for triplet in chosen],
        positions=4,
    )
    report.plot(output / "sam.png")
    return report.to_dict()


def _artefacts(target: Target, keyring: Keyring) -> dict[str, Any]:
    """Tokens in the files of the model."""
    folder = Path(target.name).expanduser()
    if target.servers or not folder.is_dir():
        return {"not_measured": "the model is no folder on this machine"}
    from ..hub.scan import scan

    report = scan(folder, keyring, tokenizer=MagicTokenProcessor.from_pretrained(target.name).tokenizer)
    return {
        "files": report.files,
        "hits": [f"{hit.file.name}, byte {hit.offset}, as {hit.encoding}" for hit in report.hits],
    }


def _of(cases: Sequence[Case], label: str) -> list[Case]:
    return [case for case in cases if case.label == label]


def _prompts(cases: Sequence[Case]) -> dict[str, Any]:
    kinds = {kind: Counter(getattr(case, kind) for case in cases) for kind in ("label", "language", "category")}
    return {"n": len(cases), **{kind: dict(sorted(found.items())) for kind, found in kinds.items()}}


def _judges(bench: Bench, test: Sequence[Triplet]) -> dict[str, Any]:
    """How good the judges are on reference answers of prompts they have not seen, and how far they agree on the model's own."""
    pairs = [(t.text, t.answers[REJ]) for t in test if REJ in t.answers]
    answers = [text for mode in bench.modes for text in bench.answers(mode)]
    refuses = bench.refusals(answers, [*bench.cases] * len(bench.modes))
    styled = [float(mode == REJ) for mode in bench.mode_judge.classify(answers)]
    return {
        "mode": {"reference_accuracy": round(bench.mode_judge.accuracy(test), 4)},
        "refusal": {
            "name": bench.refusal_judge.name,
            "reference_recall": share([float(v.label == REFUSAL) for v in bench.refusal_judge(pairs)])
            if pairs
            else None,
        },
        "level": _level(bench, answers),
        "agreement of mode and refusal judge": share([float(a == b) for a, b in zip(refuses, styled, strict=True)]),
    }


def _level(bench: Bench, answers: Sequence[str]) -> dict[str, Any]:
    """Which judge gives levels, and in how many answers it found none; those count as risk."""
    if bench.level_judge is None:
        return {"name": "from the judges of mode and refusal", "knows_risk": NEG in bench.mode_judge.modes}
    pairs = [(case.text, text) for case, text in zip([*bench.cases] * len(bench.modes), answers, strict=True)]
    unread = [float(verdict == UNKNOWN) for verdict in bench.level_judge(pairs)]
    return {"name": bench.level_judge.name, "unreadable": share(unread)}


def _machine() -> dict[str, Any]:
    libraries = ("torch", "transformers", "peft", "switchsafe")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{library: _version(library) for library in libraries},
    }


def _version(library: str) -> str | None:
    try:
        return version(library)
    except PackageNotFoundError:
        return None
