"""Reports as rich tables."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from .doctor import TemplateVerdict
    from .hub.scan import ScanReport
    from .quickstart import QuickstartReport
    from .training.preview import Preview

SAM_NAME = "SAM (Euclidean, raw logits, first answer token)"


def show_keyring(slots: Sequence[Mapping[str, Any]], path: str, console: Console) -> None:
    """One row per slot: fingerprints of the active token, of the aliases that wait and of the retired tokens."""
    title = f"Keyring {escape(path)}"
    table = Table("mode", "policy", "active token", "aliases that wait", "retired", title=title, title_justify="left")
    for slot in slots:
        active, *waiting = slot["fingerprints"]
        groups = ("\n".join(group) or "-" for group in (waiting, slot["retired_fingerprints"]))
        table.add_row(slot["mode"], slot["policy"] or "-", active, *groups)
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
    row("modes shuffled, 95 % interval", ["{:.3f} to {:.3f}".format(*r["null"]) for r in reports.values()])
    for pair in first["pairwise"]:
        row(
            f"pair {pair}",
            [f"{r['pairwise'][pair]:.3f}" + (" weakest" if r["weakest"] == pair else "") for r in reports.values()],
        )
    for mode in first["per_mode"]:
        row(f"points of {mode}", [f"{r['per_mode'][mode]:.3f}" for r in reports.values()])
    for name in first["variants"]:
        row(f"variant {name}", [f"{r['variants'][name]:.3f}" for r in reports.values()])
    for index, at in enumerate(first["by_depth"][1:], 1):
        values = [report["by_depth"][index]["value"] for report in reports.values()]
        row(f"answer token {at['token']}", ["-" if value is None else f"{value:.3f}" for value in values])
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
        console.print(
            "--fast trains on the first words of a few answers: it shows the way, not the quality. Leave --fast out for that."
        )
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


def show_preview(preview: "Preview", console: Console) -> None:
    """Rows by kind, and some of them."""
    total = sum(preview.counts.values())
    table = Table("kind", "rows", "share", title="What the model will see", title_justify="left")
    for kind, count in preview.counts.items():
        table.add_row(kind, f"{count:,}", f"{count / total:.1%}")
    console.print(table)
    console.print(
        f"{total:,} rows, {preview.ids:,} ids, of which {preview.learnt:,} have a loss; the longest row has {preview.longest}.\n"
    )
    for row in preview.rows:
        console.print(f"[bold]{row.kind}[/]{f', answered in {row.mode}' if row.mode else ''} ({row.ids} ids)")
        console.print(Text(row.seen, style="dim"), Text(row.learnt, style="green"), sep="")
        console.print()


def show_templates(verdicts: Sequence["TemplateVerdict"], console: Console) -> None:
    """One line per chat template, and how many there were of each verdict."""
    table = Table("template", "verdict", "right", "refused", "why", title="Chat templates", title_justify="left")
    for verdict in verdicts:
        reasons = dict.fromkeys([*verdict.wrong.values(), *verdict.refused.values()])
        row = (str(verdict.right), str(len(verdict.refused)), escape("; ".join(reasons)))
        table.add_row(escape(verdict.name), verdict.verdict, *row)
    console.print(table)
    counts = Counter(verdict.verdict for verdict in verdicts)
    console.print(f"{len(verdicts)} templates: " + ", ".join(f"{count} {name}" for name, count in counts.items()))


def show_scan(report: "ScanReport", console: Console) -> None:
    """Where tokens stand, what could not be searched, and how much was."""
    if report.hits:
        table = Table("file", "inside", "offset", "written as", "token", title="Tokens found", title_justify="left")
        for hit in report.hits:
            inside = escape(hit.member or "-")
            table.add_row(escape(str(hit.file)), inside, str(hit.offset), hit.encoding, hit.fingerprint)
        console.print(table)
    for file, why in report.skipped:
        console.print(f"[bold yellow]Note:[/] {escape(str(file))}: {escape(why)}", soft_wrap=True)
    size = f"{report.files:,} files, {report.bytes / 1e6:,.1f} MB"
    console.print(f"{size}: {len(report.hits)} places found, {len(report.skipped)} notes.")


def show_push(report: Mapping[str, Any], console: Console) -> None:
    """What went, or would go, and how the repository stands."""
    table = Table("file", "bytes", title="Would be pushed" if report["dry_run"] else "Pushed", title_justify="left")
    table.columns[1].justify = "right"
    for file in report["files"]:
        table.add_row(escape(file["name"]), f"{file['bytes']:,}")
    console.print(table)
    for name in report["left_out"]:
        console.print(f"Left out: {escape(name)}", soft_wrap=True)
    for name, why in report["not_searched"]:
        console.print(f"[bold yellow]Note:[/] {escape(name)}: {escape(why)}", soft_wrap=True)
    state = ("private" if report["private"] else "public") + (", gated by hand" if report["gated"] else "")
    tag = f", tag {report['tag']}" if report["tag"] else ""
    where = report["url"] or "nothing was sent"
    console.print(f"{escape(report['repo_id'])} ({report['repo_type']}, {state}{escape(tag)}): {where}", soft_wrap=True)


def show_distill(report: Mapping[str, Any], console: Console) -> None:
    """What became of the prompts, and the yield of each category."""
    table = Table("", "prompts", title=f"Triplets of {escape(report['about']['model'])}", title_justify="left")
    table.add_row("given", str(report["prompts"]))
    table.add_row("like an earlier one", str(report["repeated"]))
    table.add_row("not asked here (other machines, limit)", str(report["elsewhere"]))
    for reason, count in report["dropped"].items():
        table.add_row(f"dropped: {escape(reason)}", str(count))
    table.add_row("without an answer", str(report["failed"]))
    table.add_row("kept", str(report["kept"]), style="bold")
    console.print(table)
    table = Table("category", "kept", "asked", "yield", title_justify="left")
    for category, (kept, asked) in report["by_category"].items():
        table.add_row(escape(category), str(kept), str(asked), f"{kept / asked:.0%}")
    console.print(table)
    console.print(
        f"{report['repaired']} answers could be read at the second attempt only. {report['tokens']:,} tokens."
    )
