"""What the device sees: padded rows, and targets as indices into them."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import torch
from torch import Tensor

MAIN = "main"


@dataclass(frozen=True)
class View:
    """Padded rows that an encoder reads at once."""

    input_ids: Tensor  # (B, L) int64
    attention_mask: Tensor  # (B, L) int64, 0 at padding
    token_type_ids: Tensor  # (B, L) int64
    attention: str = "full"  # each token sees: "full", the whole row; "causal", up to itself; "reverse", from itself on


@dataclass(frozen=True)
class DeviceTarget:
    """N questions: at which token of a view, counted through its rows (row x L + place), and the answer."""

    positions: Tensor  # (N,) int64
    values: Tensor  # (N,) int64, or float32 where a number is asked for
    pointers: dict[str, Tensor] = field(default_factory=dict)  # other positions of the same view (N,), -1: none
    extras: dict[str, Tensor] = field(default_factory=dict)  # plain numbers, (N, ...)
    view: str = MAIN


@dataclass(frozen=True)
class DeviceProposal:
    """N tokens to propose replacements for, with uniform numbers for each to draw by."""

    positions: Tensor  # (N,) int64, row x L + place
    original_ids: Tensor  # (N,) int64
    uniforms: Tensor  # (N,) or (N, K) float32; the first of K draws fills in
    fills: Tensor  # (N,) bool: whether what is proposed is put into the text
    excludes_original: bool = False  # the token that was there can't be drawn
    learns: Tensor | None = None  # (N,) bool: whether a generator that learns is trained to name it; None: all are

    @property
    def taught(self) -> Tensor | slice:
        """Which of the N a generator that learns is trained to name, as an index."""
        return slice(None) if self.learns is None else self.learns

    @property
    def num_taught(self) -> int:
        return len(self.original_ids[self.taught])


@dataclass(frozen=True)
class Filling:
    """What a generator proposed for the N tokens of a proposal; no gradient."""

    proposal: DeviceProposal
    token_ids: Tensor  # (N,) or (N, K)
    log_probabilities: Tensor | None  # (N, V) of the generator before anything is excluded, if it can tell


@dataclass(frozen=True, kw_only=True)
class Batch:
    """One micro-batch on the device. `targets` is by objective, then by the target's name.

    `views` are the texts that single objectives read besides the main one, by objective, then by the view's name.
    """

    main: View
    targets: dict[str, dict[str, DeviceTarget]]
    proposals: dict[str, DeviceProposal]
    views: dict[str, dict[str, View]] = field(default_factory=dict)

    @property
    def input_ids(self) -> Tensor:
        return self.main.input_ids

    @property
    def attention_mask(self) -> Tensor:
        return self.main.attention_mask

    @property
    def token_type_ids(self) -> Tensor:
        return self.main.token_type_ids

    @property
    def num_tokens(self) -> int:
        """Tokens that an encoder reads, in all views."""
        return sum(int(view.attention_mask.sum()) for view in self.all_views)

    @property
    def all_views(self) -> list[View]:
        """The main text and those of single objectives."""
        return [self.main, *(view for views in self.views.values() for view in views.values())]

    def with_ids(self, positions: Tensor, token_ids: Tensor) -> "Batch":
        """Return the batch with other ids at flat `positions` (N,) of the main view."""
        ids = self.input_ids.flatten().scatter(0, positions, token_ids).view_as(self.input_ids)
        return replace(self, main=replace(self.main, input_ids=ids))

    def to(self, device: torch.device) -> "Batch":
        """Return the batch on `device`."""
        return _move(self, device)


def _move(thing: Any, device: torch.device) -> Any:
    if isinstance(thing, Tensor):
        return thing.to(device, non_blocking=True)
    if isinstance(thing, dict):
        return {name: _move(each, device) for name, each in thing.items()}
    if isinstance(thing, Batch | View | DeviceTarget | DeviceProposal):
        return type(thing)(**{each.name: _move(getattr(thing, each.name), device) for each in fields(thing)})
    return thing


@dataclass(frozen=True)
class Encoded:
    """What a head may look at: the encoder's last layer, and the word table that a head may be tied to."""

    hidden: Tensor  # (B, L, D)
    input_ids: Tensor  # (B, L) as the encoder saw them
    word_table: Tensor  # (V, E)
    attention_mask: Tensor | None = None  # (B, L); None: no padding
    token_type_ids: Tensor | None = None  # (B, L), of the text, whether the encoder has embeddings for them or not
    others: dict[str, "Encoded"] = field(default_factory=dict)  # the objective's other views, by name
    texts: dict[str, View] = field(default_factory=dict)  # the objective's own views, encoded or not

    def at(self, positions: Tensor) -> Tensor:  # (N, D)
        """Return the hidden states at flat `positions` (N,)."""
        return self.hidden.flatten(0, 1).index_select(0, positions)

    @property
    def firsts(self) -> Tensor:  # (B, D)
        """The hidden states of [CLS]."""
        return self.hidden[:, 0]


@dataclass(frozen=True)
class Loss:
    """A sum and the number of targets in it, never a mean.

    The loop divides by the count over all micro-batches and devices.
    """

    total: Tensor  # ()
    count: int
    statistics: dict[str, Tensor]  # sums that add up over batches and devices
    predictions: Tensor | None = None  # (N,) what the head would answer, for generators that learn from it
