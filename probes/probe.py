"""What a probe asks: places in texts, labels for them, and what is known without an encoder.

Dimensions: M texts, N items, K places of an item, C classes, D hidden.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

TRAIN, DEV, TEST = 0, 1, 2

Combination = Literal["concat", "pair", "difference", "arc"]
Kind = Literal["classification", "structural", "readout"]
Metric = Literal["accuracy", "macro_f1", "auroc", "uuas", "top1"]

TOO_RARE = "Left out as too rare: "  # in a note, before names of classes
WHOLE_TEXT = -1  # as both ends of a place: the pooled vector of the text


@dataclass(frozen=True, kw_only=True)
class Probe:
    """What is asked about places in texts. Each text is encoded once, whatever is asked about it.

    A place is a row (text, start, end): characters [start, end) of that text, whose pieces are pooled into one vector;
    (text, -1, -1) is the text's own vector. An item has K of them, combined into one feature vector:

    - "concat": the K vectors one after another;
    - "pair": [a, b, |a - b|, a * b] of two;
    - "difference": [a, b, a - b] of two (DiscoEval's for sentence ordering);
    - "arc": [child, parent, child * parent] of two (Liu et al., 2019).

    The kind says how a probe is fitted (`kinds.py`):

    - "classification": a classifier names the item's label;
    - "structural": items are the words of whole sentences in their order, the label is the place of a word's head in
      its sentence, from 1, 0 for the root (CoNLL-U's column), and the subset "punctuation" is what trees leave out;
    - "readout": items are texts, and what is hidden in them is for each encoder's tokenizer to say.
    """

    name: str
    question: str  # one sentence: what is asked, in words
    texts: tuple[str, ...]  # M
    places: np.ndarray  # (N, K, 3) int64
    labels: np.ndarray  # (N,) int64
    label_names: tuple[str, ...]  # C
    split: np.ndarray  # (N,) int8: TRAIN, DEV or TEST
    groups: np.ndarray  # (N,) int64: the document of an item, what a cluster bootstrap draws
    combine: Combination = "concat"
    kind: Kind = "classification"
    metric: Metric = "accuracy"
    subsets: dict[str, np.ndarray] = field(default_factory=dict)  # name -> (N,) bool: scored on their own too
    control_labels: np.ndarray | None = None  # (N,): random labels by word type (Hewitt and Liang, 2019)
    surface: dict[str, float] = field(default_factory=dict)  # baseline that sees no encoder -> its test score
    source: str = ""  # author, year, section of the protocol
    note: str = ""  # how the items were made, in a sentence or two

    def __post_init__(self) -> None:
        count = len(self.labels)
        if self.places.ndim != 3 or self.places.shape[0] != count or self.places.shape[2] != 3:
            raise ValueError(f"{self.name}: places has shape {self.places.shape}; ({count}, K, 3) is wanted")
        for name, values in {"split": self.split, "groups": self.groups, **self.subsets}.items():
            if len(values) != count:
                raise ValueError(f"{self.name}: {name} has {len(values)} entries for {count} items")
        if self.combine != "concat" and self.places.shape[1] != 2:
            raise ValueError(f"{self.name}: '{self.combine}' combines 2 places, an item has {self.places.shape[1]}")
        if count and not (0 <= self.labels.min() and self.labels.max() < len(self.label_names)):
            raise ValueError(f"{self.name}: a label is outside of its {len(self.label_names)} names")

    @property
    def reads_vectors(self) -> bool:
        """Whether it is fitted to vectors of its texts as they stand: a readout has them read with tokens hidden."""
        return self.kind != "readout"

    @property
    def majority(self) -> float:
        """The test accuracy of always giving the commonest training label."""
        commonest = np.bincount(self.labels[self.split == TRAIN], minlength=len(self.label_names)).argmax()
        return float((self.labels[self.split == TEST] == commonest).mean())
