"""The vocabulary head on a CPU: only at the positions that are learnt."""

import functools
import types
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


def score_labels_only(model: "PreTrainedModel") -> None:
    """Spare a model on a CPU the logits of positions without a label, in a `SFTTrainer` or `DPOTrainer` that was made for it.

    TRL's `add_fused_lm_head`, which those trainers put on the model, leaves such positions out where Triton runs. Elsewhere it scores all of them, in
    tiles that are computed again in the backward pass, which is for devices that compile for one shape. On a CPU that is most of a training step.

    Here the model's own forward scores what is left, so scaling and soft caps stay its own. Losses, metrics and gradients are TRL's up to rounding.
    The logits of labelled positions are held in float32, a few times over: with 600 of them and 49,152 entries, 118 MB each time.
    """
    from trl.trainer.utils import FusedCausalLMOutput

    of_trl, own = model.forward, type(model).forward

    @functools.wraps(of_trl)
    def forward(self: Any, *args: Any, fused_lm_head: bool = False, labels: Any = None, **kwargs: Any) -> Any:
        if not fused_lm_head or labels is None or self.device.type != "cpu":
            return of_trl(*args, fused_lm_head=fused_lm_head, labels=labels, **kwargs)
        kwargs.pop("num_items_in_batch", None)
        targets = labels[:, 1:]
        mask = targets != -100

        def keep_labelled(_module: Any, _inputs: Any, output: Any) -> Any:
            output.last_hidden_state = output.last_hidden_state[:, :-1][mask][None]
            return output

        hook = self.base_model.register_forward_hook(keep_labelled)
        try:
            output = own(self, *args, **{**kwargs, "use_cache": False})
        finally:
            hook.remove()
        scores = _scores(output.logits[0].float(), targets[mask])
        # masked_scatter keeps a batch without a label differentiable
        scores = {name: value.new_zeros(mask.shape).masked_scatter(mask, value) for name, value in scores.items()}
        # no loss: the trainers make theirs of log_probs
        return FusedCausalLMOutput(label_mask=mask, aux_loss=getattr(output, "aux_loss", None), **scores)

    model.forward = types.MethodType(forward, model)


def _scores(logits: "torch.Tensor", targets: "torch.Tensor") -> dict[str, "torch.Tensor"]:
    """What TRL's trainers ask of each position, float32 [n], from logits [n, V]; only log_probs has a gradient."""
    import torch

    every = torch.log_softmax(logits, -1)
    with torch.no_grad():
        shares = every.exp()
        rest = {
            "log_sum_sq_probs": 2 * torch.linalg.vector_norm(shares, dim=-1).log(),
            "entropy": -shares.mul_(every).sum(-1),  # in place: to allocate as much again takes longer than the sum
            "mean_logits": logits.mean(-1),
            "is_top1": every.argmax(-1) == targets,
        }
    return {"log_probs": every.gather(-1, targets[:, None])[:, 0], **rest}
