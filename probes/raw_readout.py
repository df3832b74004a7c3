"""Texts for the masked readout: what of them is hidden, each encoder's tokenizer says."""

from collections import Counter

from .probe import DEV, TEST, TRAIN, Probe
from .raw_pool import Item, Pool, make_probe, quota, whole
from .words import cut_tokens

LONGEST = 60  # words


def build_masked_readout(pool: Pool, size: int) -> Probe:
    """Sentences of which 15 % of the tokens are hidden, and named by a linear head on the frozen body's last layer.

    After the masked language model's task (Devlin et al., 2019, section 3.1, https://aclanthology.org/N19-1423/), asked
    of any body: see readout.py. Its floor is the share of the commonest word or sign, more than that of a piece.
    """
    items, filled = [], Counter[int]()
    for sentence in pool.sentences(most=LONGEST):
        split = pool.split_of(sentence)
        if filled[split] < quota(size, split):
            filled[split] += 1
            items.append(Item(places=(whole(sentence.text),), label=0, split=split, group=sentence.document))
    words = {part: Counter[str]() for part in (TRAIN, DEV, TEST)}
    for item in items:
        words[item.split].update(cut_tokens(item.places[0][0]))
    commonest = max(words[TRAIN], key=lambda word: words[TRAIN][word], default="")
    return make_probe(
        items,
        name="masked_readout",
        seed=pool.seed,
        question="Which token is hidden here?",
        label_names=("its tokens",),
        kind="readout",
        metric="top1",
        surface={"commonest_word": words[TEST][commonest] / max(words[TEST].total(), 1)},
        source="after Devlin et al., 2019, section 3.1, with a frozen body",
        note="15 % of the tokens, by the encoder's own tokenizer; a linear head on the last layer and the vector that "
        "stands for a hidden token are trained, for as many steps for every encoder.",
    )
