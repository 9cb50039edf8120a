"""One caller at a time, and what waits meanwhile as a batch: a model answers many prompts at once hardly slower than one."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")


class Batcher(Generic[Q, A]):
    """Answers questions that come from many threads.

    Whoever finds nobody at work answers what waits in line, oldest first, until the own question is among it. A batch that fails is asked again one by
    one, so that a question fails for itself alone.

    Args:
        answer: answers a batch, in order; called by one thread at a time.
        size: questions in a batch, at most.
    """

    def __init__(self, answer: Callable[[Sequence[Q]], Sequence[A]], size: int) -> None:
        self._answer, self._size = answer, size
        self._line: list[tuple[Q, Any, Future[A]]] = []
        self._busy = threading.Lock()

    def ask(self, question: Q, kind: Any = None) -> A:
        """The answer, or the error that it came to.

        Args:
            question: goes to `answer`.
            kind: questions of one batch are of equal kind.
        """
        answer: Future[A] = Future()
        self._line.append((question, kind, answer))
        with self._busy:
            while not answer.done():
                first = self._line[0]
                batch = [each for each in self._line if each[1] == first[1]][: self._size]
                for each in batch:
                    self._line.remove(each)  # not a new list: others append to this one
                self._serve(batch)
        return answer.result()

    def _serve(self, batch: Sequence[tuple[Q, Any, Future[A]]]) -> None:
        try:
            answers = self._answer([question for question, _, _ in batch])
        except Exception as error:
            if len(batch) == 1:
                batch[0][2].set_exception(error)
            else:
                for each in batch:
                    self._serve([each])
        else:
            for (_, _, future), answer in zip(batch, answers, strict=True):
                future.set_result(answer)
