"""Finding the unembedding of a model."""

from typing import TYPE_CHECKING

from ..errors import MetricError
from ..metrics.unembedding import Unembedding

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


class Head:
    """The unembedding of a model, if it can be known how to do its work."""

    def __init__(self, model: "PreTrainedModel") -> None:
        self._module = model.get_output_embeddings()
        self._checked = False
        self.unembedding: Unembedding | None = None
        self.why_not = ""
        if self._module is None:
            raise MetricError(
                f"{type(model).__name__} names no output embeddings, so its hidden states cannot be found: not a causal language model?"
            )
        self._find(model)

    def _find(self, model: "PreTrainedModel") -> None:
        import torch

        module, config = self._module, model.config.get_text_config()
        weight = getattr(module, "weight", None)
        if weight is None or type(module) is not torch.nn.Linear or not weight.is_floating_point() or weight.is_meta:
            self.why_not = f"the head is a {type(module).__name__}, no plain linear layer in memory"
            return
        cap = getattr(config, "final_logit_softcapping", None)
        scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
        shape = None
        if cap:
            shape = lambda logits: cap * torch.tanh(scale * logits / cap)  # noqa: E731
        elif scale != 1:
            shape = lambda logits: scale * logits  # noqa: E731
        self.unembedding = Unembedding(weight, module.bias, shape)

    def check(self, hidden: "torch.Tensor", logits: "torch.Tensor") -> None:
        """The first time: do these hidden states, shape (rows, d), give the model's own logits?"""
        import torch

        if self.unembedding and not self._checked:
            expected = logits[:8, :4096].float()  # a few rows and tokens tell
            found = self.unembedding.logits(hidden[:8], slice(4096)).to(expected.device)
            error = (found - expected).abs().max()
            if not error <= max(4 * torch.finfo(logits.dtype).eps, 1e-4) * expected.abs().max():
                self.unembedding, self.why_not = None, "the model does more to its logits than its configuration says"
        self._checked = True
