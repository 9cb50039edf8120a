"""switchsafe: one open-weight chat model with several safety behaviours, switched per request by the server."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from .data.triplets import Triplet, load_triplets
    from .distillation.distill import distill
    from .errors import SwitchsafeError
    from .evaluation.confusion import measure_confusion
    from .evaluation.sam import SamReport, measure_sam
    from .generation.blend import ModeBlendLogitsProcessor
    from .generation.generate import generate
    from .generation.leak import TokenLeakLogitsProcessor
    from .generation.many import generate_many
    from .generation.prefix import PrefixCache
    from .generation.stream_guard import StreamGuard
    from .generation.switchable import switchable
    from .judges.mode import ModeJudge
    from .keyring import Keyring
    from .metrics.sam import sam_score
    from .models import load_model
    from .processing import MagicTokenProcessor
    from .secret import Secret
    from .training.recipe import Recipe
    from .training.sam_callback import SamCallback
    from .training.train import train

# Name -> module, imported on first use: `import switchsafe` stays free of torch (DESIGN decision 9).
_HOMES = {
    "Keyring": "keyring",
    "MagicTokenProcessor": "processing",
    "ModeBlendLogitsProcessor": "generation.blend",
    "ModeJudge": "judges.mode",
    "PrefixCache": "generation.prefix",
    "Recipe": "training.recipe",
    "SamCallback": "training.sam_callback",
    "SamReport": "evaluation.sam",
    "Secret": "secret",
    "StreamGuard": "generation.stream_guard",
    "SwitchsafeError": "errors",
    "TokenLeakLogitsProcessor": "generation.leak",
    "Triplet": "data.triplets",
    "distill": "distillation.distill",
    "generate": "generation.generate",
    "generate_many": "generation.many",
    "load_model": "models",
    "load_triplets": "data.triplets",
    "measure_confusion": "evaluation.confusion",
    "measure_sam": "evaluation.sam",
    "sam_score": "metrics.sam",
    "switchable": "generation.switchable",
    "train": "training.train",
}

__all__ = [
    "Keyring",
    "MagicTokenProcessor",
    "ModeBlendLogitsProcessor",
    "ModeJudge",
    "PrefixCache",
    "Recipe",
    "SamCallback",
    "SamReport",
    "Secret",
    "StreamGuard",
    "SwitchsafeError",
    "TokenLeakLogitsProcessor",
    "Triplet",
    "__version__",
    "distill",
    "generate",
    "generate_many",
    "load_model",
    "load_triplets",
    "measure_confusion",
    "measure_sam",
    "sam_score",
    "switchable",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'switchsafe' has no attribute {name!r}")
    value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
