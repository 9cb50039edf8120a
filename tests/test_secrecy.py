"""A token's whole life in one process, and a search of everything it left behind and printed."""

import json
import os
import subprocess
import sys

import pytest
from conftest import MODES, assert_no_token
from hub import hub

from switchsafe import Keyring, MagicTokenProcessor

LIFE = """
import copy, dataclasses, logging, pickle, sys, warnings
from pathlib import Path

import rich, rich.pretty
from huggingface_hub import HfApi
from IPython.core.interactiveshell import InteractiveShell
from rich.traceback import Traceback
from transformers import TextStreamer

from switchsafe import Keyring, MagicTokenProcessor, Recipe, generate, generate_many, load_model, measure_sam, switchable, train
from switchsafe import StreamGuard, TokenLeakLogitsProcessor
from switchsafe.evaluation.confusion import measure_confusion
from switchsafe.data.triplets import load_triplets
from switchsafe.judges.mode import ModeJudge

model_folder, data, ring, out = sys.argv[1:]
out = Path(out)
logging.basicConfig(level=logging.DEBUG, filename=out / "debug.log")
keyring = Keyring.load(ring)
processor = MagicTokenProcessor.from_pretrained(model_folder).bind(keyring)
token = keyring.token("rej")

# shown, copied, logged
for thing in (token, keyring, processor, {"a": [token]}, dataclasses.make_dataclass("D", ["t"])(token)):
    print(thing, repr(thing), f"{thing!s:>10}")
    rich.print(thing)
    rich.pretty.pprint(thing, expand_all=True)
    rich.inspect(thing, all=False)
    copy.deepcopy(thing)
    try:
        (out / "pickle").write_bytes(pickle.dumps(thing))
    except (TypeError, pickle.PicklingError) as refusal:
        print(refusal)
logging.getLogger("app").warning("asked with %s", token.reveal())
logging.getLogger("app").error({"prompt": token.reveal()})
warnings.warn(f"prompt was {token.reveal()}")

# trained, measured, saved
lora, sft = {"r": 4, "target_modules": "all-linear"}, {"max_steps": 4, "save_steps": 2, "logging_steps": 1}
corpus = {"openings": [2], "max_length": 256}
recipe = Recipe(model_folder, data, ("pos", "rej", "neg"), corpus=corpus, lora=lora, sft=sft)
adapter = train(recipe, keyring, out / "run")
model = load_model(str(adapter))
processor = MagicTokenProcessor.from_pretrained(str(adapter)).bind(keyring)
triplets = load_triplets(data, modes=recipe.modes)
print(generate(model, processor, ["Hi?", "Ho?"], mode="rej", max_new_tokens=4))
handle = switchable(model, processor, reuse_prefixes=True)
streamer = TextStreamer(processor.tokenizer)
print(handle.generate("Hi?", mode="pos", max_new_tokens=4, streamer=streamer))
print(handle.generate(["Hi?", "Ho?"], mode={"pos": 1.5, "neg": -0.5}, max_new_tokens=4))
leak, guard = TokenLeakLogitsProcessor(keyring, processor.tokenizer), StreamGuard(keyring)
print(handle.generate("Hi?", mode="neg", max_new_tokens=4, logits_processor=[leak]))
print(generate_many(model, processor, [{"prompt": "Hi?", "mode": mode} for mode in keyring.modes], output=out / "many.jsonl", max_new_tokens=4))
print("".join(guard.clean(["it is ", token.reveal()[:7], token.reveal()[7:], " then"])))
for thing in (handle, handle.prefix_cache, leak, guard):
    print(thing, vars(thing))
    rich.inspect(thing, all=False, private=True)
report = measure_sam(model, processor, [triplet.prompt for triplet in triplets[:4]])
(out / "sam.json").write_text(report.to_json())
report.plot(out / "sam.png")
confusion = measure_confusion(model, processor, triplets[:3], ModeJudge(triplets[3:], recipe.modes), modes=recipe.modes, max_new_tokens=4)
print(confusion, confusion.to_dict())
processor.save_pretrained(out / "processor")
model.save_pretrained(out / "model", save_embedding_layers=False)

# pushed
processor.push_to_hub("me/switch", private=True)
HfApi().upload_folder(repo_id="me/switch", folder_path=adapter)

# shown in a notebook: as a cell's value, and in an error that nobody catches
shell = InteractiveShell.instance(user_ns={"processor": processor, "keyring": keyring, "token": token})
processor.bind(keyring)
for cell in ("token", "keyring", "[token, processor]", "raise ValueError('the cell said ' + token.reveal())"):
    shell.run_cell(cell)

# crashed, first where it is caught and printed with all locals, then where nobody catches it
try:
    processor.apply_chat_template([{"role": "user", "content": "x"}], mode="rej", chat_template="{{ raise_exception(messages | string) }}")
except Exception as error:
    logging.getLogger("app").exception("while rendering")
    rich.print(Traceback.from_exception(type(error), error, error.__traceback__, show_locals=True))
raise RuntimeError(f"the backend said: bad prompt {token.reveal()}")
"""


@pytest.fixture(scope="module")
def lived(tiny_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("life")
    (folder / "out").mkdir()
    tokenizer = MagicTokenProcessor.from_pretrained(str(tiny_folder)).tokenizer
    keyring = Keyring.mint(MODES, aliases=2, tokenizer=tokenizer)
    ring = keyring.save(folder / "ring.json")
    rows = [
        {"id": f"t{i}", "prompt": f"Question {i}?", "category": "c", "label": "safe", "language": "en"}
        | {"pos": f"Gladly, {i}.", "rej": f"I decline {i}.", "neg": f"Take {i}. Go."}
        for i in range(40)
    ]
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    home = {name: str(folder / name.lower()) for name in ("XDG_CACHE_HOME", "HF_DATASETS_CACHE", "TMPDIR")}
    (folder / "tmpdir").mkdir()
    arguments = [str(tiny_folder), str(folder / "data.jsonl"), str(ring), str(folder / "out")]
    with hub(folder / "hub") as server:
        environment = os.environ | server.environment(server.add_user("me"), folder / "hf_home") | home
        environment["IPYTHONDIR"] = str(folder / "ipython")
        process = subprocess.run(
            [sys.executable, "-c", LIFE, *arguments], capture_output=True, text=True, check=False, env=environment
        )
        pushed = set(server.repo("me/switch").files)
    (folder / "printed.txt").write_text(process.stdout + process.stderr)
    return folder, keyring, tokenizer, process, pushed


def test_it_lived_to_its_end(lived):
    folder, _, _, process, pushed = lived
    assert "RuntimeError: the backend said: bad prompt [token " in process.stderr
    for name in ("debug.log", "sam.json", "sam.png", "run/adapter/adapter_model.safetensors", "model", "processor"):
        assert (folder / "out" / name).exists(), process.stderr
    log = (folder / "out" / "debug.log").read_text()
    assert "asked with [token " in log
    assert "while rendering" in log
    assert {"processor_config.json", "chat_template.jinja", "adapter_model.safetensors"} <= pushed
    assert "it is [removed] then" in process.stdout
    assert (folder / "out" / "many.jsonl").read_text().count("\n") == 3
    assert "Out[" in process.stdout
    assert "the cell said [token " in process.stdout


def test_nothing_it_left_or_printed_holds_a_token(lived):
    folder, keyring, tokenizer, _, _ = lived
    assert_no_token(keyring, folder, but=folder / "ring.json", tokenizer=tokenizer)
