"""A judge that reads an answer and says which mode it is in."""

from collections.abc import Sequence

from ..data.triplets import Triplet
from ..errors import TripletError


class ModeJudge:
    """A linear classifier on word and character n-grams, fitted on reference answers of prompts that are not judged.

    It sees the answer alone: neither the prompt nor the token. Quick and transparent, and only as good as its style knowledge: report its own
    `accuracy` on held-out reference answers beside whatever it judges.
    """

    def __init__(self, triplets: Sequence[Triplet], modes: Sequence[str]) -> None:
        """Fit on the answers of `triplets`, for instance the train and validation splits. Needs `switchsafe[eval]`.

        Raises:
            TripletError: a mode has no answers to learn from.
        """
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.linear_model import LogisticRegression
        from sklearn.pipeline import make_pipeline, make_union

        texts, labels = _answers(triplets, modes)
        if missing := set(modes) - set(labels):
            raise TripletError(f"the judge has no answers to learn mode {', '.join(sorted(missing))} from.")
        self.modes = tuple(modes)
        features = make_union(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
            TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 4), sublinear_tf=True, min_df=2),
        )
        self._pipeline = make_pipeline(features, LogisticRegression(C=10, class_weight="balanced", max_iter=1000))
        self._pipeline.fit(texts, labels)

    def classify(self, answers: Sequence[str]) -> list[str]:
        """The mode of each answer."""
        return [str(mode) for mode in self._pipeline.predict(list(answers))] if answers else []

    def accuracy(self, triplets: Sequence[Triplet]) -> float:
        """Share of the reference answers of `triplets` that are recognised."""
        texts, labels = _answers(triplets, self.modes)
        return float(self._pipeline.score(texts, labels))


def _answers(triplets: Sequence[Triplet], modes: Sequence[str]) -> tuple[list[str], list[str]]:
    pairs = [(t.answers[mode], mode) for t in triplets for mode in modes if mode in t.answers]
    return [text for text, _ in pairs], [mode for _, mode in pairs]
