"""The Safety Alignment Margin for the `evaluate` library: a thin shell around `switchsafe.metrics.sam`."""

import datasets
import evaluate
import numpy as np

from switchsafe.metrics.sam import Metric, distances, from_sums, gram_of, mode_codes, mode_sums, pairwise_sam

DESCRIPTION = """\
SAM says how far apart the behaviours of one model are: the mean silhouette of its first-token logits, grouped by the mode that was asked for.
1: every mode is a tight group of its own. 0: the modes overlap. Below 0: points are nearer to another mode than to their own.
"""

INPUTS = """
Args:
    predictions: one row of numbers per point, the raw logits at the first answer token (or hidden states with the same distances).
    references: the mode of each point.
    metric: "euclidean" (the definition), "cosine", "centred" or "log_probs".
Returns:
    sam: the margin, in [-1, 1].
    sam_weakest_pair: the smallest margin of any two modes alone; a headline can be carried by one mode.
    sam_MODE: the mean over the points of each mode.
Example:
    >>> sam = evaluate.load(switchsafe.metrics.sam_module())
    >>> sam.compute(predictions=[[0, 0], [0, 1], [9, 9], [9, 8]], references=["pos", "pos", "rej", "rej"])["sam"]
    0.92...
"""

CITATION = """\
@article{si2025switchable,
  title={Efficient Switchable Safety Control in LLMs via Magic-Token-Guided Co-Training},
  author={Si and Sun and Tan and Zhang},
  journal={arXiv preprint arXiv:2508.14904},
  year={2025}
}
"""


@evaluate.utils.file_utils.add_start_docstrings(DESCRIPTION, INPUTS)
class Sam(evaluate.Metric):
    def _info(self) -> evaluate.MetricInfo:
        features = {"predictions": datasets.Sequence(datasets.Value("float32")), "references": datasets.Value("string")}
        return evaluate.MetricInfo(
            description=DESCRIPTION,
            citation=CITATION,
            inputs_description=INPUTS,
            features=datasets.Features(features),
            reference_urls=["https://arxiv.org/abs/2508.14904"],
        )

    def _compute(self, predictions: list, references: list[str], metric: Metric = "euclidean") -> dict[str, float]:
        gram = gram_of(np.asarray(predictions), centre=metric != "cosine")
        codes = mode_codes(references, gram.rows)
        sums = mode_sums(distances(gram, metric), codes)
        values = from_sums(sums, codes)
        modes = {
            f"sam_{mode}": float(values[codes == code].mean()) for code, mode in enumerate(dict.fromkeys(references))
        }
        return {"sam": float(values.mean()), "sam_weakest_pair": min(pairwise_sam(sums, codes).values()), **modes}
