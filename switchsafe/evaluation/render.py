"""An evaluation's report for people: tables on the terminal, a page, and a part of a card."""

import base64
from collections.abc import Callable, Iterator, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..files import write_atomic
from ..modes import NEG, colour

HTML, MARKDOWN = "report.html", "report.md"

Rows = list[tuple[str, ...]]


def tables(report: Mapping[str, Any]) -> Iterator[tuple[str, Rows]]:
    """Titles and rows, the first of each with the names of columns; what was not measured says why."""
    measures = report["measures"]
    yield "Margin (SAM, Euclidean, raw logits, first answer token)", _rows(measures["sam"], _sam)
    yield "Modes", _behaviour(measures["behaviour"])
    yield "Fallback (unsafe prompts)", _rows(measures["fallback"], _fallback)
    yield (
        "A live token typed by the user",
        [
            ("mode typed", "system turn", "answers in that mode"),
            *(
                (mode, place, _share(row))
                for mode, places in measures["misplaced"].items()
                for place, row in places.items()
            ),
        ],
    )
    yield "Dialogues", _rows(measures["dialogues"], _dialogues)
    yield "Wrapped unsafe prompts, in pos", _rows(measures["attacks"], _attacks)
    yield "Leaks", _leaks(measures["leaks"])
    yield (
        "Small questions (a smoke test of general ability)",
        [
            ("asked", "right"),
            *((name, _share(row)) for name, row in measures["ability"].items()),
        ],
    )
    judges = report["judges"]
    recall = judges["refusal"]["reference_recall"]
    yield (
        "Judges",
        [
            ("judge", "against what", "agreement"),
            ("mode", "reference answers of the test split", f"{judges['mode']['reference_accuracy']:.1%}"),
            ("mode", "training answers, by the others", _columns(measures["columns"])),
            ("refusal", "reference refusals of the test split", _share(recall) if recall else "-"),
            (
                "mode, refusal",
                "each other, on the model's answers",
                _share(judges["agreement of mode and refusal judge"]),
            ),
            *(
                ("level", "answers it gave no readable verdict on", _share(row))
                for row in [judges["level"].get("unreadable")]
                if row
            ),
            *(
                ("refusal", "human labels", f"{row['accuracy']:.1%}, kappa {row['kappa']:.2f}, n {row['n']}")
                for row in [judges.get("human")]
                if row
            ),
        ],
    )


def show(report: Mapping[str, Any], console: Console) -> None:
    """Everything, on a terminal."""
    for title, rows in tables(report):
        table = Table(*rows[0], title=title, title_justify="left")
        for row in rows[1:]:
            table.add_row(*map(escape, row))
        console.print(table)
    for sign in report["signs"]:
        console.print(f"[bold red]Sign of failure:[/] {escape(sign)}.")
    for one in report["checks"]:
        word = "[green]holds[/]" if one["holds"] else "[bold red]missed[/]"
        console.print(f"{word}: {escape(one['path'])} is {one['found']}, asked for {_bounds(one)}")


def write_html(report: Mapping[str, Any], folder: Path) -> Path:
    """One self-contained page: tables, the picture of the margin, and examples, those of `neg` hidden until they are asked for."""
    picture = folder / "sam.png"
    page = _template("report.html.jinja", autoescape=True).render(
        report=report,
        tables=list(tables(report)),
        picture=base64.b64encode(picture.read_bytes()).decode() if picture.exists() else None,
        colours={mode: colour(mode) for mode in report["measures"]["behaviour"]},
        hidden=NEG,
        bounds=_bounds,
    )
    return write_atomic(folder / HTML, page, mode=0o600)


def to_markdown(report: Mapping[str, Any]) -> str:
    """Verdicts and tables, without examples: for a card."""
    return _template("report.md.jinja").render(report=report, tables=list(tables(report)), bounds=_bounds)


def write_markdown(report: Mapping[str, Any], folder: Path) -> Path:
    """`to_markdown` in a file."""
    return write_atomic(folder / MARKDOWN, to_markdown(report))


def _template(name: str, autoescape: bool = False) -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=autoescape, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.from_string((files("switchsafe") / "evaluation" / "templates" / name).read_text("utf-8"))


def _rows(measure: Mapping[str, Any], rows: Callable[[Mapping[str, Any]], Rows]) -> Rows:
    """Its rows, or why there are none."""
    if "not_measured" in measure:
        return [("measure", "value"), ("not measured", measure["not_measured"])]
    return rows(measure)


def _sam(sam: Mapping[str, Any]) -> Rows:
    low, high = sam["interval"]
    return [
        ("measure", "value"),
        ("SAM", f"{sam['value']:.3f} ({low:.3f} to {high:.3f}), {sam['prompts']} prompts"),
        ("modes shuffled", "{:.3f} to {:.3f}".format(*sam["null"])),
        *(
            (f"{pair}{', the weakest pair' if pair == sam['weakest'] else ''}", f"{v:.3f}")
            for pair, v in sam["pairwise"].items()
        ),
        *((f"points of {mode}", f"{v:.3f}") for mode, v in sam["per_mode"].items()),
        *((f"{name} instead", f"{v:.3f}") for name, v in sam["variants"].items()),
        *(
            (f"answer token {at['token']}", "-" if at["value"] is None else f"{at['value']:.3f}")
            for at in sam["by_depth"][1:]
        ),
    ]


def _columns(columns: Mapping[str, Any]) -> str:
    if "not_measured" in columns:
        return f"not measured: {columns['not_measured']}"
    strange = columns["strange"]
    return f"all but {strange['value']:.1%} of {strange['n']} read as their column says"


def _behaviour(behaviour: Mapping[str, Any]) -> Rows:
    modes = list(next(iter(behaviour.values()))["got"])
    return [
        (
            "asked",
            *(f"got {mode}" for mode in modes),
            "mode accuracy",
            "on unsafe",
            "CSS, unsafe",
            "CoSA, unsafe",
            "refused, safe",
            "refused, unsafe",
        ),
        *(
            (
                mode,
                *(str(row["got"][other]) for other in modes),
                _share(row["accuracy"]),
                *(_part(row, "unsafe", key) for key in ("accuracy", "css", "cosa")),
                *(_part(row, label, "refused") for label in ("safe", "unsafe")),
            )
            for mode, row in behaviour.items()
        ),
    ]


def _part(row: Mapping[str, Any], label: str, key: str) -> str:
    part = row["label"].get(label)
    if part is None:
        return "-"
    return f"{part[key]:.2f}" if key == "cosa" else _points(part[key]) if key == "css" else _share(part[key])


def _fallback(fallback: Mapping[str, Any]) -> Rows:
    return [
        ("token", "Constructive Safety Score", "drop from pos", "got", "came out in the mode nearly hit"),
        *(
            (
                kind,
                _points(row["css"]),
                f"{row['drop']:.1f}" if "drop" in row else "-",
                ", ".join(f"{mode} {count}" for mode, count in row.get("got", {}).items()) or "-",
                _share(row["hits"]) if row.get("hits") else "-",
            )
            for kind, row in fallback.items()
        ),
    ]


def _dialogues(dialogues: Mapping[str, Any]) -> Rows:
    turns = len(next(iter(dialogues["holds"].values())))
    return [
        ("mode", *(f"turn {turn + 1}" for turn in range(turns)), "switched to it at the last turn"),
        *(
            (mode, *(f"{row['value']:.0%}" for row in rows), _share(dialogues["switches"][mode]))
            for mode, rows in dialogues["holds"].items()
        ),
    ]


def _attacks(attacks: Mapping[str, Any]) -> Rows:
    return [
        ("wrapper", "Constructive Safety Score", "drop"),
        ("all", _points(attacks["css"]), f"{attacks['drop']:.1f}"),
        *((name, _points(row["css"]), f"{row['drop']:.1f}") for name, row in attacks["wrappers"].items()),
    ]


def _leaks(leaks: Mapping[str, Any]) -> Rows:
    rows: Rows = [("test", "of", "found")]
    rows += [
        ("asked for its token", mode, f"{row['leaks']} of {row['n']}") for mode, row in leaks["extraction"].items()
    ]
    for name, title in (("sampling", "written from a bare system turn"), ("exposure", "likelihood in its place")):
        part = leaks[name]
        if "not_measured" in part:
            rows.append((title, "-", f"not measured: {part['not_measured']}"))
        elif name == "sampling":
            rows += [
                (title, f"temperature {row['temperature']}", f"{row['leaks']} of {row['n']}") for row in part["rows"]
            ]
        else:
            rows += [
                (
                    title,
                    f"{row['mode']} {row['fingerprint']}",
                    f"rank {row['rank']} of {row['of']}, {row['exposure']} bits",
                )
                for row in part["rows"]
            ]
    artefacts = leaks["artefacts"]
    found = (
        f"not measured: {artefacts['not_measured']}"
        if "not_measured" in artefacts
        else f"{len(artefacts['hits'])} in {artefacts['files']} files"
    )
    return [*rows, ("tokens in files", "the model's folder", found)]


def _share(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.1%} ({row['low']:.0%} to {row['high']:.0%}, n {row['n']})"


def _points(row: Mapping[str, Any]) -> str:
    return f"{row['value']:.1f} ({row['low']:.0f} to {row['high']:.0f}, n {row['n']})"


def _bounds(one: Mapping[str, Any]) -> str:
    return " and ".join(
        f"{word} {one[key]}" for key, word in (("least", "at least"), ("most", "at most")) if one[key] is not None
    )
