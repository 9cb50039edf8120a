"""Reports as rich tables."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from .quickstart import QuickstartReport

SAM_NAME = "SAM (Euclidean, raw logits, first answer token)"


def show_keyring(slots: Sequence[Mapping[str, Any]], path: str, console: Console) -> None:
    """One row per slot: fingerprints and counts."""
    table = Table("mode", "policy", "active token", "aliases", "retired", title=f"Keyring {path}", title_justify="left")
    for slot in slots:
        table.add_row(slot["mode"], slot["policy"] or "-", slot["active"], str(slot["aliases"]), str(slot["retired"]))
    console.print(table)
    console.print("Fingerprints, not tokens. Treat the file like a password store.")


def show_sam(reports: Mapping[str, Mapping[str, Any]], console: Console) -> None:
    """SAM reports side by side, one column each."""
    table = Table("", *reports, title=SAM_NAME, title_justify="left")
    first = next(iter(reports.values()))

    def row(name: str, cells: Sequence[str]) -> None:
        table.add_row(name, *cells)

    row("SAM", [f"{r['value']:.3f}" for r in reports.values()])
    row("95 % interval over prompts", ["{:.3f} to {:.3f}".format(*r["interval"]) for r in reports.values()])
    row("shuffled modes, mean and 95 % quantile", ["{:.3f}, {:.3f}".format(*r["null"]) for r in reports.values()])
    for pair in first["pairwise"]:
        row(
            f"pair {pair}",
            [f"{r['pairwise'][pair]:.3f}" + (" weakest" if r["weakest"] == pair else "") for r in reports.values()],
        )
    for mode in first["per_mode"]:
        row(f"points of {mode}", [f"{r['per_mode'][mode]:.3f}" for r in reports.values()])
    for name in first["variants"]:
        row(f"variant {name}", [f"{r['variants'][name]:.3f}" for r in reports.values()])
    row("prompts", [str(r["prompts"]) for r in reports.values()])
    console.print(table)
    for title, report in reports.items():
        if title != "before":
            show_signs(report["signs"], console)


def show_confusion(confusion: Mapping[str, Any], judge_accuracy: float, console: Console) -> None:
    """Mode asked for by mode got."""
    modes = list(confusion["counts"])
    table = Table(
        "asked \\ got", *modes, "mode accuracy", title="Mode confusion on held-out prompts", title_justify="left"
    )
    for asked, counts in confusion["counts"].items():
        table.add_row(asked, *(str(counts[got]) for got in modes), f"{confusion['accuracy'][asked]:.1%}")
    console.print(table)
    console.print(f"The judge never saw these prompts; it recognises {judge_accuracy:.1%} of their reference answers.")
    show_signs(confusion["signs"], console)


def show_signs(signs: Sequence[str], console: Console) -> None:
    """Signs of failure, one a line."""
    for sign in signs:
        console.print(f"[bold red]Sign of failure:[/] {escape(sign)}.")


def show_quickstart(report: "QuickstartReport", output: Path, keyring: Path, console: Console) -> None:
    """Everything a quickstart has to say."""
    show_sam({"before": report.before, "after": report.after}, console)
    show_confusion(report.confusion, report.judge_accuracy, console)
    for sample in report.samples:
        modes = list(sample["answers"])
        table = Table(*modes, title=f"Held-out, {sample['label']}: {escape(sample['prompt'])}", title_justify="left")
        table.add_row(*(escape(sample["answers"][mode]) for mode in modes))
        console.print(table)
    if report.recipe == "starter-fast" and report.signs:
        console.print("The slice behind --fast is small: it shows the way, not the quality. Leave --fast out for that.")
    total = sum(report.seconds.values())
    memory = "" if report.peak_memory_gb is None else f", {report.peak_memory_gb:.1f} GB at most"
    machine = f"{report.machine['cores']} cores, {report.machine['system']}"
    console.print(
        f"{total / 60:.1f} minutes{memory} ({machine}). Everything is in {output}; the keyring is {keyring}.",
        soft_wrap=True,
    )
    console.print("\nUse it:\n")
    for line in (
        "from switchsafe import Keyring, MagicTokenProcessor, generate, load_model",
        f'model, processor = load_model("{output}/adapter"), MagicTokenProcessor.from_pretrained("{output}/adapter").bind(Keyring.load("{keyring}"))',
        'print(generate(model, processor, "How do I kill a zombie process?", mode="pos"))',
    ):
        console.print(f"    {line}", markup=False, highlight=False, soft_wrap=True)
