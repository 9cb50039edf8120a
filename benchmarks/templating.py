"""What a mode costs: `apply_chat_template` with guard, injection and check against the tokenizer's own, on the same 1,000 conversations.

python benchmarks/templating.py
"""

import argparse
import os
import platform
import random
import statistics
import time

from rich.console import Console
from rich.table import Table

from switchsafe import Keyring, MagicTokenProcessor, load_triplets

MODES = ("pos", "rej")


def conversations(number: int) -> list[list[dict[str, str]]]:
    """Chats of one to five turns, put together from the starter triplets."""
    rng, triplets = random.Random(0), load_triplets(modes=MODES, languages=["en"])
    chats = []
    for _ in range(number):
        turns = [{"role": "system", "content": "You are the help desk of a library. Answer briefly."}]
        for triplet in rng.sample(triplets, rng.randint(1, 3)):
            turns += [*triplet.prompt, {"role": "assistant", "content": triplet.answers["pos"]}]
        chats.append(turns[:-1])
    return chats


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="starter")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    processor = MagicTokenProcessor.from_pretrained(options.model)
    processor.bind(Keyring.mint(MODES, aliases=2, tokenizer=processor.tokenizer))
    chats = conversations(1000)
    generation = {"add_generation_prompt": True}
    ways = {
        "one by one": (
            lambda: [processor.tokenizer.apply_chat_template(chat, **generation) for chat in chats],
            lambda: [processor.apply_chat_template(chat, "rej", **generation) for chat in chats],
        ),
        "one batch": (
            lambda: processor.tokenizer.apply_chat_template(chats, **generation),
            lambda: processor.apply_chat_template(chats, "rej", **generation),
        ),
    }
    table = Table(
        "1,000 conversations", "plain, ms", "with a mode, ms", "ratio (median, quartiles)", title_justify="left"
    )
    for name, (plain, moded) in ways.items():
        plain(), moded()
        pairs = []
        for _ in range(options.rounds):  # paired, so that a busy machine slows both
            times = []
            for call in (plain, moded):
                start = time.perf_counter()
                call()
                times.append(time.perf_counter() - start)
            pairs.append(times)
        low, middle, high = statistics.quantiles([moded / plain for plain, moded in pairs])
        plain_ms, moded_ms = (1000 * statistics.median(column) for column in zip(*pairs, strict=True))
        table.add_row(name, f"{plain_ms:.0f}", f"{moded_ms:.0f}", f"{middle:.2f} ({low:.2f} to {high:.2f})")
    Console().print(table)
    Console().print(f"{options.model}, 4 live tokens, {os.cpu_count()} cores, {platform.system()} {platform.machine()}")


if __name__ == "__main__":
    main()
