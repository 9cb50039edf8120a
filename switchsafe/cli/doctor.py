"""`switchsafe doctor`: does the switch hold here?"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from ..progress import track
from .options import JsonOption, print_json, read_text

doctor = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help="Check that the switch holds here.")


@doctor.command("templates", epilog="Example: switchsafe doctor templates --model Qwen/Qwen3-8B --json")
def doctor_templates(
    model: Annotated[
        str, typer.Option(help="Whose tokenizer and own template: starter, a Hub id or a folder.")
    ] = "starter",
    template: Annotated[
        list[Path] | None, typer.Option(help="A jinja file to check; repeat for more. By default all that TRL carries.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Render real chat templates in every mode: is the token there exactly once, in its turn, and nothing else changed?

    Exits with 1 when a template is wrong: neither right nor refused with a reason.
    """
    from ..doctor import WRONG, check_template, probe_processor, trl_templates
    from ..processing import MagicTokenProcessor
    from ..tables import show_templates

    processor = MagicTokenProcessor.from_pretrained(model)
    chosen = {path.stem: read_text(path) for path in template or []} or trl_templates()
    if processor.chat_template:
        chosen = {model: processor.chat_template, **chosen}
    probe = probe_processor(processor)
    verdicts = [check_template(name, text, probe) for name, text in track(list(chosen.items()), "Rendering templates")]
    if as_json:
        print_json([asdict(verdict) | {"verdict": verdict.verdict} for verdict in verdicts])
    else:
        show_templates(verdicts, Console())
    raise typer.Exit(1 if any(verdict.verdict == WRONG for verdict in verdicts) else 0)
