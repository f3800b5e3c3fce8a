"""DeepLIFT on simulated genomics: which scores find the motifs that were put into a sequence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sklearn.metrics import precision_recall_curve
from torch import Tensor

from benchmarks.deeplift_genomics import (
    AUROC,
    COLUMNS,
    PRECISION,
    Sequences,
    auroc,
    average_precision,
    genomics_network,
    genomics_test_set,
    scores,
)
from benchmarks.reproduction.stage import Claim, Context, Figure, Paper, Report, Table, Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Canvas

#: Of an average precision, and of an area under a ROC curve, absolute.
TOLERANCE = 0.005
AUROC_TOLERANCE = 0.001
#: The sequence whose scores are drawn, counted among those with both motifs.
SHOWN = 0

_NOTE = (
    "The network, the sequences and the published figures are the authors' own. The reference has the "
    "letters' frequencies at every position. Scores of the 236 test sequences with both motifs are "
    "compared with the positions of the motifs. As published, guided backpropagation × input scores "
    "highest; its values sum to nothing in particular. For the other two tasks, of one motif each, Rescale "
    "alone is best of the three rules: `python -m benchmarks.attribution_rules`."
)


class DeepLiftGenomics:
    """The six columns of the authors' experiment, for the task that needs both motifs."""

    name = "deeplift_genomics"
    title = "DeepLIFT: finding motifs in sequences"
    paper: Paper = "DeepLIFT"
    needs_shared = True

    def run(self, context: Context) -> Report:
        """Measure all columns; a quick run does the same, in seconds."""
        assert context.shared is not None
        network, sequences = genomics_network(context.shared), genomics_test_set(context.shared)
        both = sequences.with_both_motifs()
        found = {}
        for done, column in enumerate(COLUMNS):
            context.progress(done, len(COLUMNS), column)
            found[column] = scores(network, both.inputs, column)
        precision = {column: average_precision(each, both.embedded) for column, each in found.items()}
        return Report(
            (_auroc(auroc(network, sequences)), _precision(precision), _rules(precision)),
            (_table(precision),),
            (
                Figure(
                    "curves",
                    "Precision over recall of each method's scores, with the average precision.",
                    lambda canvas: _draw_curves(canvas, found, precision, both),
                ),
                Figure(
                    "sequence",
                    "One sequence: scores by position. Shaded: where motifs were put in.",
                    lambda canvas: _draw_sequence(canvas, found, both),
                ),
            ),
            note=_NOTE,
        )


def _auroc(found: tuple[float, ...]) -> Claim:
    return Claim(
        "DeepLIFT",
        "The authors' network for genomics reaches a test AUROC of .989, .988 and .997 (within .001).",
        ", ".join(f"{each:.4f}" for each in found),
        _verdict(all(abs(a - b) <= AUROC_TOLERANCE for a, b in zip(found, AUROC, strict=True))),
    )


def _precision(found: dict[str, float]) -> Claim:
    off = [each - published for each, published in zip(found.values(), PRECISION, strict=True)]
    within = sum(abs(each) <= TOLERANCE for each in off)
    return Claim(
        "DeepLIFT",
        "Average precision of the scores of six methods against the embedded motifs (within .005).",
        f"{within} of {len(off)} within .005; the furthest is {max(off, key=abs):+.4f} off",
        _verdict(within == len(off)),
    )


def _rules(found: dict[str, float]) -> Claim:
    *_, rescale, revealcancel, both = found.values()
    return Claim(
        "DeepLIFT",
        "Task 0: Rescale behind convolutions with RevealCancel behind dense layers beats either alone.",
        f"{both:.3f}; Rescale alone {rescale:.3f}, RevealCancel alone {revealcancel:.3f}",
        _verdict(both > max(rescale, revealcancel)),
    )


def _table(found: dict[str, float]) -> Table:
    return Table(
        "Average precision of motif positions, task 0",
        ("method", "published", "measured"),
        tuple(
            (column, f"{published:.3f}", f"{each:.4f}")
            for (column, each), published in zip(found.items(), PRECISION, strict=True)
        ),
    )


def _draw_curves(
    canvas: Canvas, found: dict[str, Tensor], precision: dict[str, float], sequences: Sequences
) -> None:
    canvas.set_size_inches(7.5, 4.2)
    axis = canvas.subplots()
    for column, each in found.items():
        curve = precision_recall_curve(sequences.embedded.flatten().numpy(), each.flatten().numpy())
        axis.plot(curve[1], curve[0], linewidth=1.2, label=f"{precision[column]:.3f}  {column}")
    axis.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
    axis.legend(fontsize=8, loc="lower left")


def _draw_sequence(canvas: Canvas, found: dict[str, Tensor], sequences: Sequences) -> None:
    canvas.set_size_inches(7.5, 6.5)
    embedded = sequences.embedded[SHOWN]
    for axis, (column, each) in zip(canvas.subplots(len(found), sharex=True), found.items(), strict=True):
        values = each[SHOWN].numpy()
        low, high = min(values.min(), 0), values.max()
        axis.fill_between(
            range(len(values)), low, high, where=embedded.numpy(), color="0.85", step="mid", linewidth=0
        )
        axis.bar(range(len(values)), values, width=1.0, color="tab:red")
        axis.set_title(column, fontsize=8, loc="left", pad=2)
        axis.tick_params(labelsize=7)
    axis.set_xlabel("position")


def _verdict(holds: bool) -> Verdict:
    return "holds" if holds else "does not hold"


STAGE = DeepLiftGenomics()
