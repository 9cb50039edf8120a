"""The unembedding of a model: from the last hidden states to logits, and to the inner products of logits without the logits."""

import functools
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from ..errors import MetricError
from .gram import Floats, Gram

if TYPE_CHECKING:
    import torch

_TOKENS = 2048  # rows of the unembedding taken at a time
_COLUMNS = 512  # of the image of the logits


class Unembedding:
    """`logits = shape(hidden @ weight.T + bias)` of a language model.

    Attributes:
        weight: shape (V, d), any floating dtype and device.
        bias: shape (V,), or None.
        shape: what the model does to logits one by one, a soft cap or a scale for instance; None for a linear head.
    """

    def __init__(
        self,
        weight: "torch.Tensor",
        bias: "torch.Tensor | None" = None,
        shape: "Callable[[torch.Tensor], torch.Tensor] | None" = None,
    ) -> None:
        self.weight, self.bias, self.shape = weight, bias, shape

    def logits(self, hidden: "torch.Tensor", tokens: slice = slice(None)) -> "torch.Tensor":
        """Logits of a slice of the vocabulary, shape (N, slice), in float32.

        Args:
            hidden: last hidden states as the head sees them, shape (N, d).
            tokens: which rows of the vocabulary.
        """
        import torch

        with torch.no_grad():
            weight = self.weight[tokens]
            found = hidden.to(weight.device).float() @ weight.float().T
            if self.bias is not None:
                found += self.bias[tokens].float()
            return found if self.shape is None else self.shape(found)

    def streamed_gram(self, hidden: "torch.Tensor", *, group: int = 1) -> Gram:
        """Inner products of the logits of N hidden states, never more than a slice of the vocabulary at a time. Right for every head.

        Raises:
            MetricError: a logit is not finite.
        """

        def slices() -> Iterator[Floats]:
            for start in range(0, len(self.weight), _TOKENS):
                yield self.logits(hidden, slice(start, start + _TOKENS)).cpu().double().numpy()

        return Gram(slices, rows=len(hidden), width=len(self.weight), group=group)

    def hidden_gram(self, hidden: "torch.Tensor", *, group: int = 1, log_sums: Floats | None = None) -> Gram:
        """The same without any logits: for a linear head the inner product of two rows of logits is that of the hidden states under W'W.

        W'W = R'R is computed and factored once, and R kept for as long as the weight lives and is not written to. Then R h stands for W h.

        Args:
            hidden: shape (N, d).
            group: see `Gram`.
            log_sums: logarithm of the summed exponentials of each row's logits, without which there are no log-probabilities.

        Raises:
            MetricError: the head is not linear, or a value is not finite.
        """
        import torch

        if self.shape is not None:
            raise MetricError(
                "this model caps or scales its logits, so distances between logits are not distances between hidden states: use the streamed route."
            )
        factor, mean_row = self.factor()
        states = hidden.to(factor.device).float()
        if self.bias is not None:
            states = torch.cat([states, states.new_ones(len(states), 1)], dim=1)
        middle = states.mean(dim=0)
        states = states - middle  # around their mean they keep their precision in float32
        means = (states @ mean_row).cpu().double().numpy()
        image = (states @ factor.T).cpu().numpy()
        centre = (factor @ middle).cpu().double().numpy()

        def slices() -> Iterator[Floats]:
            for start in range(0, image.shape[1], _COLUMNS):
                columns = slice(start, start + _COLUMNS)
                yield image[:, columns] + centre[columns]

        return Gram(slices, rows=len(hidden), width=len(self.weight), group=group, means=means, log_sums=log_sums)

    def factor(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """R with R'R = W'W, shape (d, d), and the mean row of W, shape (d,), both float32. A bias is one more column of W."""
        import torch

        parts = [part for part in (self.weight, self.bias) if part is not None]
        versions = [
            0 if part.is_inference() else part._version for part in parts
        ]  # torch counts writes, but not to inference tensors
        kept = _factors()
        if self.weight not in kept or kept[self.weight][0] != versions:
            with torch.no_grad():
                kept[self.weight] = (versions, *self._factor())
        return kept[self.weight][1:]

    def is_factored(self) -> bool:
        """Whether `factor` has it at hand."""
        return self.weight in _factors()

    def _factor(self) -> "tuple[torch.Tensor, torch.Tensor]":
        import torch

        size = self.weight.shape[1] + (self.bias is not None)
        place = "cpu" if self.weight.device.type == "mps" else self.weight.device  # Apple's GPUs have no float64
        square = torch.zeros(size, size, dtype=torch.float64, device=place)
        mean_row = square.new_zeros(size)
        for start in range(0, len(self.weight), _TOKENS):
            part = self.weight[start : start + _TOKENS].float()
            if self.bias is not None:
                part = torch.cat([part, self.bias[start : start + _TOKENS, None].float()], dim=1)
            for row in range(0, size, _COLUMNS):  # W'W is symmetric: half of it is enough
                square[row : row + _COLUMNS, row:] += (part[:, row : row + _COLUMNS].T @ part[:, row:]).to(place)
            mean_row += part.sum(dim=0).to(place)
        square = square.triu() + square.triu(1).T
        # A direction that the head does not see at all leaves W'W singular.
        jitter = 0.0
        one = torch.eye(size, dtype=square.dtype, device=square.device)
        while (result := torch.linalg.cholesky_ex(square + jitter * one))[1]:
            jitter = max(10 * jitter, 1e-14 * float(square.trace()))
        return result[0].T.float().contiguous(), (mean_row / len(self.weight)).float()


@functools.cache
def _factors() -> Any:
    """By weight, for as long as it lives."""
    from torch.utils.weak import WeakTensorKeyDictionary

    return WeakTensorKeyDictionary()
