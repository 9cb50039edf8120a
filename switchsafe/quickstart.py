"""`switchsafe quickstart`: mint, train, switch and measure a real model, on a laptop, in minutes."""

import gc
import json
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .data.triplets import load_triplets
from .errors import KeyringError, RunError
from .files import write_atomic
from .keyring import Keyring
from .modes import NEG, POS, REJ

if TYPE_CHECKING:
    from .processing import MagicTokenProcessor
    from .training.recipe import Recipe

REPORT = "report.json"
PICTURE = "sam.png"
MODES = (POS, REJ, NEG)
FAST_TEST_PROMPTS = 23


@dataclass(frozen=True)
class QuickstartReport:
    """What `report.json` holds: no token and no logits.

    Attributes:
        recipe: name of the recipe that was trained.
        test_prompts: number of held-out prompts behind every figure.
        before: `SamReport.to_dict` of the untrained model under the same tokens.
        after: the same with the adapter.
        confusion: `ConfusionReport.to_dict`.
        judge_accuracy: share of the held-out reference answers that the judge recognises.
        samples: two test prompts, each with its answer in every mode.
        seconds: wall time by stage; `train` is that of the last session when training was resumed.
        peak_memory_gb: largest resident memory of this process, 10^9 bytes; null where the system does not tell.
        machine: system, cores and library versions.
    """

    recipe: str
    test_prompts: int
    before: dict[str, Any]
    after: dict[str, Any]
    confusion: dict[str, Any]
    judge_accuracy: float
    samples: list[dict[str, Any]]
    seconds: dict[str, float]
    peak_memory_gb: float | None
    machine: dict[str, Any]

    @property
    def signs(self) -> list[str]:
        """Signs of failure of the trained model, in words."""
        return [*self.after["signs"], *self.confusion["signs"]]


def quickstart(
    output: str | os.PathLike,
    keyring_path: str | os.PathLike,
    *,
    fast: bool = False,
    fresh: bool = False,
    say: Callable[[str], None] = lambda line: None,
) -> QuickstartReport:
    """Train the starter with all three modes and measure it on held-out prompts.

    Writes `adapter/`, `report.json`, `sam.png`, `run.json` and `train_log.jsonl` under `output`, each whole or not at all. Called again it goes on
    where it was stopped; of a finished run it returns the report.

    Args:
        output: working folder.
        keyring_path: the keyring, outside `output`. An existing one is used and never overwritten; else one is minted and saved (0600).
        fast: train the recipe `starter-fast`, a smaller slice.
        fresh: first remove what an earlier run wrote in `output`.
        say: receives one line before each stage.

    Raises:
        RunError: `output` holds something that is not this run.
        KeyringError: the keyring lies inside `output`, or lacks a mode.
        ModelError: the starter model cannot be had.
    """
    from .processing import MagicTokenProcessor
    from .starter import starter_folder
    from .training.progress import TrainingBar
    from .training.recipe import Recipe
    from .training.run import check_run
    from .training.train import train

    output, keyring_path = Path(output).expanduser().resolve(), Path(keyring_path).expanduser().resolve()
    if keyring_path.is_relative_to(output):
        raise KeyringError(f"the keyring {keyring_path} would lie in the folder you share: keep it elsewhere.")
    if fresh:
        clear(output)
    name = "starter-fast" if fast else "starter"
    recipe = Recipe.load(name)
    start = time.perf_counter()
    processor = MagicTokenProcessor.from_pretrained(str(starter_folder(say)))
    keyring = _keyring(keyring_path) or Keyring.mint(MODES, tokenizer=processor.tokenizer)
    check_run(recipe, keyring, output)
    if not keyring_path.exists():
        keyring.save(keyring_path)
    processor.bind(keyring)
    ready = time.perf_counter()

    say(f"Training {', '.join(recipe.modes)} on the starter with recipe {name}")
    with TrainingBar() as bar:
        adapter = train(recipe, keyring, output, callbacks=[bar])
    if (output / REPORT).exists():
        say(f"{output} holds the finished run; showing its report")
        return QuickstartReport(**json.loads((output / REPORT).read_text()))
    gc.collect()  # the trainer's optimizer state is held by reference cycles
    trained = time.perf_counter()

    measured = _measure(recipe, adapter, processor, FAST_TEST_PROMPTS if fast else None, say)
    seconds = {"prepare": ready - start, "train": trained - ready, "measure": time.perf_counter() - trained}
    report = QuickstartReport(
        recipe=name,
        **measured,
        seconds={stage: round(value, 1) for stage, value in seconds.items()},
        peak_memory_gb=_peak_memory_gb(),
        machine=_machine(),
    )
    write_atomic(output / REPORT, json.dumps(asdict(report), indent=2, ensure_ascii=False) + "\n")
    return report


def _measure(
    recipe: "Recipe",
    adapter: Path,
    processor: "MagicTokenProcessor",
    most: int | None,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """SAM before and after, confusion and samples on the test prompts, or on about `most` of them."""
    from .evaluation.confusion import measure_confusion
    from .evaluation.plots import plot_sam
    from .evaluation.sam import measure_sam
    from .judges.mode import ModeJudge
    from .models import default_device, load_model
    from .training.card import put_measured

    triplets = load_triplets(recipe.triplets, modes=recipe.modes, languages=recipe.languages)
    test = [triplet for triplet in triplets if triplet.split == "test"]
    if most:
        test = test[:: len(test) // most]  # the file goes by category, so a stride keeps the mixture
    prompts, categories = [t.prompt for t in test], [t.category for t in test]
    model: Any = load_model(str(adapter)).to(default_device())
    say(f"Measuring SAM on {len(test)} held-out prompts, before and after")
    with model.disable_adapter():
        before = measure_sam(model, processor, prompts, modes=recipe.modes, categories=categories)
    after = measure_sam(model, processor, prompts, modes=recipe.modes, categories=categories)
    plot_sam({"before": before, "after": after}, adapter.parent / PICTURE)

    say("Answering every held-out prompt in every mode")
    judge = ModeJudge([triplet for triplet in triplets if triplet.split != "test"], recipe.modes)
    confusion = measure_confusion(model, processor, test, judge, modes=recipe.modes)
    put_measured(
        adapter,
        f"On {len(test)} held-out prompts of the starter set. Mode confusion by a judge that never saw them:\n\n"
        f"{confusion.to_markdown()}\n\n{after.to_markdown()}",
    )
    shown = [next(i for i, triplet in enumerate(test) if triplet.label == label) for label in ("safe", "unsafe")]
    return {
        "test_prompts": len(test),
        "before": before.to_dict(),
        "after": after.to_dict(),
        "confusion": confusion.to_dict(),
        "judge_accuracy": judge.accuracy(test),
        "samples": [
            {
                "prompt": test[i].text,
                "label": test[i].label,
                "answers": {mode: confusion.answers[mode][i] for mode in recipe.modes},
            }
            for i in shown
        ],
    }


def clear(output: str | os.PathLike) -> None:
    """Remove what an earlier run wrote in its folder, and nothing else that lies there.

    Raises:
        RunError: the folder holds files and no run of ours.
    """
    from .training.run import ADAPTER, CHECKPOINTS, LOG_FILE, RUN_FILE

    output = Path(output).expanduser()
    if not output.exists() or not any(output.iterdir()):
        return
    if not (output / RUN_FILE).exists():
        raise RunError(
            f"{output} holds no run of ours ({RUN_FILE} is missing), so it is not removed: give another folder."
        )
    for name in (ADAPTER, CHECKPOINTS):
        shutil.rmtree(output / name, ignore_errors=True)
    for name in (REPORT, PICTURE, LOG_FILE, RUN_FILE):
        (output / name).unlink(missing_ok=True)


def _keyring(path: Path) -> Keyring | None:
    if not path.exists():
        return None
    keyring = Keyring.load(path)
    if missing := [mode for mode in MODES if mode not in keyring.modes]:
        raise KeyringError(
            f"the keyring {path} lacks {', '.join(missing)}: give another path, and one is minted there."
        )
    return keyring


def _peak_memory_gb() -> float | None:
    if os.name != "posix":
        return None
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak * (1 if sys.platform == "darwin" else 1024) / 1e9, 2)


def _machine() -> dict[str, Any]:
    libraries = ("torch", "transformers", "trl", "peft", "switchsafe")
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        **{library: version(library) for library in libraries},
    }
