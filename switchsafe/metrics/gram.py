"""Inner products of logit rows: all that SAM needs to know of them, however wide the vocabulary is."""

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from ..errors import MetricError

Floats = NDArray[np.float64]
Parts = Callable[[], Iterator[Floats]]

KEPT_ROWS = 8192  # up to here the whole matrix is kept: 0.5 GB
BLOCK_BYTES = 2**25


class Gram:
    """Inner products of N rows of logits around their mean row, in blocks of rows, and what else the variants of SAM depend on.

    Centred because distances do not change by it, and rounding errors shrink.

    Attributes:
        rows: N.
        width: columns of the logits, the size of the vocabulary.
        group: how many rows in a line belong to one prompt.
        lengths: length of each row as it is, shape (N,), float64; so are all below.
        squares: squared length of each centred row, shape (N,).
        around_prompt: squared length of each row around the mean of its prompt, shape (N,).
        shifts: inner product of each centred row with the mean row, shape (N,).
        offset: squared length of the mean row.
        means: mean of each row up to a constant, shape (N,).
        log_sums: logarithm of the summed exponentials of each row, shape (N,), or None when it is not known.
    """

    def __init__(
        self,
        parts: Parts,
        *,
        rows: int,
        width: int,
        group: int = 1,
        centre: bool = True,
        means: Floats | None = None,
        log_sums: Floats | None = None,
    ) -> None:
        """Read all parts once.

        Args:
            parts: gives the logits in slices of columns, anew at each call, as fresh float64 arrays of shape (N, any); or any image of them
                with the same inner products.
            rows: N.
            width: columns of the logits.
            group: rows of one prompt, which stand together.
            centre: False leaves the rows as they are, the better choice for cosines of rows of very different lengths.
            means: mean of each row; by default taken from the parts, which must then be the logits. So are the `log_sums`.
            log_sums: where they are known from elsewhere.

        Raises:
            MetricError: a value is not finite.
        """
        self.rows, self.width, self.group = rows, width, group
        self._parts, self._centre = parts, centre
        self._whole = np.zeros((rows, rows)) if rows <= KEPT_ROWS else None
        lengths, self.squares, self.around_prompt = np.zeros(rows), np.zeros(rows), np.zeros(rows)
        self.shifts, self.offset = np.zeros(rows), 0.0
        sums, exponentials = np.zeros(rows), LogSum(rows)
        bad = np.zeros(rows, dtype=bool)
        for part in parts():
            bad |= ~np.isfinite(part).all(axis=1)
            if bad.any():
                continue
            if means is None:
                sums += part.sum(axis=1)
                exponentials.add(part)
            lengths += np.einsum("ij,ij->i", part, part)
            middle = self._centred(part)
            self.offset += float(middle @ middle)
            self.shifts += part @ middle
            self.squares += np.einsum("ij,ij->i", part, part)
            if group > 1:
                near = part.reshape(-1, group, part.shape[1])
                near = (near - near.mean(axis=1, keepdims=True)).reshape(part.shape)
                self.around_prompt += np.einsum("ij,ij->i", near, near)
            if self._whole is not None:
                self._whole += part @ part.T
        if bad.any():
            raise MetricError(f"{bad.sum()} of {rows} points hold NaN or infinity: no distance can be taken.")
        self.lengths = np.sqrt(np.maximum(lengths, 0))
        self.means = sums / width if means is None else means
        self.log_sums = exponentials.value() if means is None else log_sums
        if self._whole is not None:
            self._whole = (self._whole + self._whole.T) / 2
            self.squares = np.diag(self._whole).copy()  # rounded as its neighbours are: equal rows are at distance 0

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """All rows of the matrix, as (which rows, block of shape (some, N)). Prompts are not split."""
        step = max(1, BLOCK_BYTES // (8 * self.rows * self.group)) * self.group
        for start in range(0, self.rows, step):
            where = slice(start, min(start + step, self.rows))
            if self._whole is not None:
                yield where, self._whole[where].copy()
                continue
            block = np.zeros((where.stop - where.start, self.rows))
            for part in self._parts():
                self._centred(part)
                block += part[where] @ part.T
            yield where, block

    def subset(self, rows: NDArray[np.int64]) -> "Gram":
        """The matrix of some of the rows; whole prompts, if `group` is to keep its meaning."""
        log_sums = None if self.log_sums is None else self.log_sums[rows]
        return Gram(
            lambda: (part[rows] for part in self._parts()),
            rows=len(rows),
            width=self.width,
            group=self.group,
            centre=self._centre,
            means=self.means[rows],
            log_sums=log_sums,
        )

    def plane(self) -> Floats:
        """The rows on their first two principal axes, shape (N, 2), by subspace iteration: PCA without the columns.

        Raises:
            MetricError: there are more than 8,192 rows; take a `subset`.
        """
        if self._whole is None:
            raise MetricError(f"{self.rows} points are too many for principal axes: take {KEPT_ROWS} at most.")
        axes = np.random.default_rng(0).normal(size=(self.rows, min(10, self.rows)))
        for _ in range(50):
            axes, _ = np.linalg.qr(self._whole @ axes)
        values, turn = np.linalg.eigh(axes.T @ self._whole @ axes)
        top = np.argsort(values)[::-1][:2]
        return (axes @ turn[:, top]) * np.sqrt(np.maximum(values[top], 0))

    def _centred(self, part: Floats) -> Floats:
        """Subtract the mean row in place, and return it."""
        middle = part.mean(axis=0) if self._centre else np.zeros(part.shape[1])
        part -= middle
        return middle


class LogSum:
    """Logarithm of summed exponentials by row, while columns come in slices."""

    def __init__(self, rows: int) -> None:
        self._largest, self._sum = np.full(rows, -np.inf), np.zeros(rows)

    def add(self, part: Floats) -> None:
        """Take in some more columns, shape (rows, any)."""
        largest = np.maximum(self._largest, part.max(axis=1))
        self._sum = self._sum * np.exp(self._largest - largest) + np.exp(part - largest[:, None]).sum(axis=1)
        self._largest = largest

    def value(self) -> Floats:
        """Shape (rows,)."""
        return self._largest + np.log(self._sum)
