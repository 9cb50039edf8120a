"""`switchsafe chat`: a conversation in the terminal, with the mode switched at will."""

import contextlib
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from ..errors import SwitchsafeError
from ..inject import Message
from ..keyring import Keyring
from ..modes import colour
from .options import KeyringOption, ModelArgument, TemperatureOption, load, open_keyring, parse_mode, sampling

if TYPE_CHECKING:
    from ..generation.switchable import SwitchableModel

HELP = """\
/mode NAME     switch to a mode, or to a blend such as pos=0.7,rej=0.3
/retry         answer the last message again, in the mode that is set now
/system TEXT   set the system text; without TEXT, take it away
/reset         forget the conversation
/help          show this
/quit          leave (or Ctrl-D); Ctrl-C stops an answer"""


def chat_command(
    model: ModelArgument,
    mode: Annotated[str, typer.Option(help="Mode to begin with; by default the keyring's first.")] = "",
    policy: Annotated[str | None, typer.Option(help="For keyrings with a second axis.")] = None,
    system: Annotated[str, typer.Option(help="System text to begin with.")] = "",
    keyring: KeyringOption = None,
    max_new_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 512,
    temperature: TemperatureOption = None,
) -> None:
    """Talk to a model and switch its mode with /mode. /help lists what else there is."""
    ring, _ = open_keyring(keyring)
    first = parse_mode(mode or ring.modes[0], ring, policy)
    from ..generation.switchable import switchable

    handle = switchable(*load(model, ring))
    settings = {"max_new_tokens": max_new_tokens, **sampling(temperature)}
    Chat(handle, ring, first, policy, system, settings).run()


class Chat:
    """The conversation so far, and what is set."""

    def __init__(
        self,
        handle: "SwitchableModel",
        ring: Keyring,
        mode: str | dict[str, float],
        policy: str | None,
        system: str,
        settings: dict[str, Any],
    ) -> None:
        self.handle, self.ring, self.mode, self.policy, self.settings = handle, ring, mode, policy, settings
        self.system = system
        self.turns: list[Message] = []
        self.console = Console(highlight=False)

    def run(self) -> None:
        """Read and answer until the end of input."""
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401  line editing and history of what was typed
        if sys.stdin.isatty():
            self.console.print(f"[dim]Modes: {', '.join(self.ring.modes)}. /help lists commands.[/dim]")
        while True:
            try:
                line = self.console.input(self.badge() if sys.stdin.isatty() else "").strip()
            except EOFError:
                return
            except KeyboardInterrupt:
                self.console.print("[dim]/quit or Ctrl-D leaves.[/dim]")
                continue
            if line == "/quit":
                return
            try:
                self.take(line)
            except SwitchsafeError as error:
                self.console.print(Text(f"error: {error}", style="red"))
            except KeyboardInterrupt:  # a second one, while the first was being dealt with
                self.console.print()

    def take(self, line: str) -> None:
        """Do what a line asks for."""
        command, _, rest = line.partition(" ")
        rest = rest.strip()
        if not line.startswith("/"):
            if line:
                self.answer([*self.turns, {"role": "user", "content": line}])
        elif command == "/mode":
            if not rest:
                raise SwitchsafeError(f"which mode? {', '.join(self.ring.modes)}, or a blend such as pos=0.7,rej=0.3.")
            self.mode = parse_mode(rest, self.ring, self.policy)
        elif command == "/retry":
            if not self.turns:
                raise SwitchsafeError("there is no message to answer again.")
            self.answer(self.turns[:-1])
        elif command == "/system":
            self.system = rest
        elif command == "/reset":
            self.turns = []
        elif command == "/help":
            self.console.print(HELP, markup=False)
        else:
            raise SwitchsafeError(f"there is no {command}: /help lists what there is.")

    def answer(self, turns: list[Message]) -> None:
        """Stream the answer to a conversation, which is the conversation from then on. A stopped answer stays as far as it came."""
        from transformers import TextStreamer

        said: list[str] = []
        console = self.console

        class Show(TextStreamer):
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                said.append(text)
                # What a model writes may not steer the terminal.
                console.print(
                    "".join(char for char in text if char.isprintable() or char in "\n\t"),
                    end="\n" if stream_end else "",
                    markup=False,
                    soft_wrap=True,
                )

        head = [{"role": "system", "content": self.system}] if self.system else []
        streamer = Show(self.handle.processor.tokenizer, skip_special_tokens=True)
        try:
            self.handle.generate(
                [*head, *turns], mode=self.mode, policy=self.policy, streamer=streamer, **self.settings
            )
        except KeyboardInterrupt:
            console.print("[dim] (stopped)[/dim]")
        self.turns = [*turns, {"role": "assistant", "content": "".join(said).strip()}]

    def badge(self) -> Text:
        """The mode in its colour, in front of what is typed."""
        weights = {self.mode: 1.0} if isinstance(self.mode, str) else self.mode
        modes = list(self.ring.modes)
        badge = Text()
        for mode, weight in weights.items():
            label = f" {mode} " if len(weights) == 1 else f" {mode} {weight:g} "
            badge.append(label, style=f"bold white on {colour(mode, modes.index(mode))}")
        return badge.append(" ")
