"""Loading a model, a tokenizer or an adapter by name: `"starter"`, a Hub id, or a folder."""

import hashlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ModelError, SwitchsafeError
from .starter import HUB_ID, STARTER, starter_folder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ADAPTER_CONFIG = "adapter_config.json"
_END = 1 << 20  # bytes


def resolve(name: str) -> str:
    """The folder or Hub id behind a model name; `"starter"` is fetched and converted on first use.

    Raises:
        ModelError: `name` looks like a path and nothing is there.
    """
    if name == STARTER:
        return str(starter_folder())
    path = Path(name).expanduser()
    if path.is_dir():
        return str(path)
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError(f"no folder {name}: give a folder, a Hub id such as {HUB_ID}, or {STARTER}.")
    return name


def find_file(name: str, file: str, **kwargs: Any) -> Path | None:
    """A file of a model, from its folder or the Hub's cache; downloaded if need be. None where the model has no such file.

    Args:
        name: as for `resolve`.
        file: its name.
        kwargs: `revision`, `token`, `cache_dir` and the like, as `from_pretrained` takes them; others are ignored.
    """
    from transformers.utils import cached_file

    known = ("revision", "token", "cache_dir", "local_files_only", "force_download", "subfolder")
    found = cached_file(
        resolve(name),
        file,
        **{key: kwargs[key] for key in known if kwargs.get(key) is not None},
        _raise_exceptions_for_missing_entries=False,
        _raise_exceptions_for_connection_errors=False,
    )
    return Path(found) if found else None


def could_not_look(name: str, file: str, **kwargs: Any) -> bool:
    """After `find_file` found nothing: whether the Hub was out of reach, so that the file may be there all the same."""
    from huggingface_hub import try_to_load_from_cache

    if Path(resolve(name)).is_dir():
        return False
    known = {key: kwargs[key] for key in ("cache_dir", "revision") if kwargs.get(key) is not None}
    return try_to_load_from_cache(resolve(name), file, **known) is None  # else the cache has noted that there is none


def load_model(name: str, *, revision: str | None = None, **kwargs: Any) -> "PreTrainedModel":
    """Load a causal language model in evaluation mode, or a LoRA adapter together with its base model.

    An adapter trained on the starter finds it again wherever it was converted. The dtype
    defaults to the checkpoint's own, or float32 on CPUs without fast bfloat16.

    Args:
        name: `"starter"`, a model or adapter on the Hub, or a folder of either.
        revision: branch, tag or commit of `name` on the Hub.
        kwargs: passed to `AutoModelForCausalLM.from_pretrained` of the (base) model.

    Raises:
        ModelError: nothing to load under that name, or the adapter needs `switchsafe[train]`.
    """
    from transformers import AutoModelForCausalLM

    path, at = resolve(name), {"revision": revision} if revision else {}
    with loading(name):
        adapter = find_file(name, ADAPTER_CONFIG, **at)
        if not adapter:
            return AutoModelForCausalLM.from_pretrained(path, **at, **{"dtype": _dtype(), **kwargs}).eval()
    try:
        from peft import PeftModel
    except ImportError:
        raise ModelError(f"{name} is an adapter, which needs `pip install 'switchsafe[train]'`.") from None
    base = json.loads(adapter.read_text())["base_model_name_or_path"]
    model = load_model(STARTER if base == HUB_ID else base, **kwargs)
    with loading(name):
        return PeftModel.from_pretrained(model, path, **at).eval()


@contextmanager
def loading(name: str) -> Iterator[None]:
    """Turn the library's long loading errors into one line that says what to do."""
    try:
        yield
    except SwitchsafeError:
        raise
    except (OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0][:200].rstrip(".")
        raise ModelError(
            f"cannot load {name!r}: {reason}. Give {STARTER}, a folder, or a Hub id that this machine can reach or has cached."
        ) from None


def identity_of(name: str) -> str:
    """Tells a model from another under the same name: the commit on the Hub, or a hash of what is in a folder.

    Of large files the size and both ends are read.
    """
    folder = Path(resolve(name))
    if not folder.is_dir():
        found = find_file(name, ADAPTER_CONFIG) or find_file(name, "config.json")
        return f"{name}@{found.parent.name}" if found else name  # the Hub's cache has a folder for each commit
    facts = hashlib.sha256()
    for path in sorted(
        path for path in folder.rglob("*") if path.suffix in (".safetensors", ".bin", ".json", ".jinja")
    ):
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            facts.update(f"{path.relative_to(folder)} {size}".encode())
            for start in (0, max(0, size - _END)):
                file.seek(start)
                facts.update(file.read(_END))
    return facts.hexdigest()[:16]


def default_device() -> str:
    """The accelerator's type, such as `"cuda"`, or `"cpu"`."""
    import torch

    # Without the question first, a torch that was built for CUDA names it on machines that have none.
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator.type if accelerator else "cpu"


def _dtype() -> Any:
    """The checkpoint's own dtype, but float32 on a CPU that would only emulate bfloat16."""
    import torch

    if torch.accelerator.is_available() or torch.cpu._is_avx512_bf16_supported():
        return "auto"
    return torch.float32
