"""The DeepLIFT authors' simulated genomics: which scores find the motifs that were put into a sequence.

Network, data and published figures are those of ``truth/deeplift`` in the shared folder (Shrikumar, Greenside
and Kundaje, arXiv 1704.02685, section 4.2). Used by tests and by ``make reproduce``.
"""

from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score, roc_auc_score
from torch import Tensor, nn

from proxygrad.attribution.attribute import attribute

LETTERS = "ACGT"
#: Of A, C, G and T at every position of the reference.
FREQUENCIES = (0.3, 0.2, 0.2, 0.3)
#: By column: the arguments of `attribute`, and whether its gradient is multiplied with the input itself.
COLUMNS: dict[str, tuple[dict[str, Any], bool]] = {
    "gradient × input": ({"method": "gradient_times_input", "reference": "zeros"}, False),
    "guided backprop × input": ({"method": "guided_backprop"}, True),
    "integrated gradients, 10": ({"method": "integrated_gradients", "points": 10}, False),
    "Rescale": ({"rule": "rescale"}, False),
    "RevealCancel everywhere": ({"rule": "revealcancel"}, False),
    "Rescale behind convolutions, RevealCancel behind dense layers": ({"rule": "auto"}, False),
}
#: The published average precision for task 0, in the order of `COLUMNS`.
PRECISION = (0.556, 0.733, 0.698, 0.665, 0.484, 0.698)
#: The published area under the ROC curve of the three tasks.
AUROC = (0.989, 0.988, 0.997)


class Sequences(NamedTuple):
    """``inputs`` ``(N, 4, 200)``, one-hot; ``embedded`` ``(N, 200)``: in a motif; ``labels`` ``(N, 3)``."""

    inputs: Tensor
    embedded: Tensor
    labels: Tensor

    def with_both_motifs(self) -> Sequences:
        """Those of task 0."""
        which = self.labels[:, 0] == 1
        return Sequences(self.inputs[which], self.embedded[which], self.labels[which])

    def first(self, count: int) -> Sequences:
        """The first of them."""
        return Sequences(self.inputs[:count], self.embedded[:count], self.labels[:count])


def genomics_network(shared: Path) -> nn.Sequential:
    """The authors' network: ``(N, 4, 200)`` → logits ``(N, 3)``. Keras keeps kernels as (length, in, out)."""
    kept = load_file(shared / "truth" / "deeplift" / "genomics_conv1d.safetensors")
    network = nn.Sequential(
        *(nn.Conv1d(4, 50, 11), nn.ReLU(), nn.Conv1d(50, 50, 11), nn.ReLU(), nn.AvgPool1d(180)),
        *(nn.Flatten(), nn.Linear(50, 50), nn.ReLU(), nn.Dropout(), nn.Linear(50, 3)),
    )
    weights = {
        "0.weight": kept["conv1d_1.kernel"].permute(2, 1, 0),
        "0.bias": kept["conv1d_1.bias"],
        "2.weight": kept["conv1d_2.kernel"].permute(2, 1, 0),
        "2.bias": kept["conv1d_2.bias"],
        "6.weight": kept["dense_1.kernel"].T,
        "6.bias": kept["dense_1.bias"],
        "9.weight": kept["dense_2.kernel"].T,
        "9.bias": kept["dense_2.bias"],
    }
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def genomics_test_set(shared: Path) -> Sequences:
    """The 800 test sequences, in the published order."""
    folder = shared / "truth" / "deeplift"
    with gzip.open(folder / "sequences.simdata.gz", "rt") as lines:
        rows = {row["seqName"]: row for row in csv.DictReader(lines, delimiter="\t")}
    with gzip.open(folder / "test.txt.gz", "rt") as names:
        chosen = [rows[name.strip()] for name in names]
    return Sequences(
        torch.stack([_one_hot(row["sequence"]) for row in chosen]),
        torch.stack([_embedded(row["embeddings"], len(row["sequence"])) for row in chosen]),
        torch.tensor([[int(row[task]) for task in ("task1", "task2", "task3")] for row in chosen]),
    )


def _one_hot(sequence: str) -> Tensor:
    return torch.tensor([[float(each == letter) for each in sequence] for letter in LETTERS])


def _embedded(embeddings: str, length: int) -> Tensor:
    """``pos-120_GATA_disc1-GCAGATAAGA,…`` → ``(length,)``, True where a motif lies."""
    found = torch.zeros(length, dtype=torch.bool)
    for each in filter(None, embeddings.split(",")):
        place, _, site = each.removeprefix("pos-").rpartition("-")
        begin = int(place.partition("_")[0])
        found[begin : begin + len(site)] = True
    return found


def reference() -> Tensor:
    """The letters' frequencies at every position, ``(4, 200)``."""
    return torch.tensor(FREQUENCIES).unsqueeze(1).expand(4, 200)


def scores(network: nn.Module, inputs: Tensor, column: str, task: int = 0) -> Tensor:
    """What each position adds to the logit of a task according to a column, ``(N, 200)``."""
    how, times_input = COLUMNS[column]
    found = attribute(network, inputs, f"output:{task}", **{"reference": reference(), **how}).contributions
    return (found * inputs if times_input else found).sum(dim=1)


def average_precision(found: Tensor, embedded: Tensor) -> float:
    """Of scores ``(N, 200)`` as to which positions lie in motifs, over all sequences together."""
    return float(average_precision_score(embedded.flatten().numpy(), found.flatten().numpy()))


def auroc(network: nn.Module, sequences: Sequences) -> tuple[float, ...]:
    """The area under the ROC curve of each task."""
    with torch.no_grad():
        logits = network(sequences.inputs)
    return tuple(
        float(roc_auc_score(sequences.labels[:, task].numpy(), logits[:, task].numpy())) for task in range(3)
    )
