"""Recipes: what a paper pretrained with, under one name; every setting given beside it wins."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from corpora.errors import UserError

_BERT_ADAM = {"adam_beta1": 0.9, "adam_beta2": 0.999, "adam_epsilon": 1e-6, "weight_decay": 0.01}
_ROBERTA_ADAM = _BERT_ADAM | {"adam_beta2": 0.98}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a paper that carry over to small encoders and short runs.

    These are what is learned, by which generator, at which rates, and the momenta. Batch, learning rate, warm-up and
    dropout are those of long runs of large encoders, and stay as they are here; so do the encoder and the tokenizer.
    """

    source: str
    settings: Mapping[str, Any]


RECIPES: dict[str, Recipe] = {
    "bert": Recipe(
        source="Devlin et al., 2019, appendix A, https://arxiv.org/abs/1810.04805",
        settings={"objective": "mlm+nsp", **_BERT_ADAM},
    ),
    "roberta": Recipe(
        source="Liu et al., 2019, sections 4.1 and 4.2, https://arxiv.org/abs/1907.11692",
        settings={"objective": "mlm:count=probabilistic", **_ROBERTA_ADAM},
    ),
    "albert": Recipe(  # its optimizer, LAMB, is for batches of thousands
        source="Lan et al., 2020, sections 3.1 and 4.1, https://arxiv.org/abs/1909.11942",
        settings={"objective": "mlm:strategy=ngrams+sop"},
    ),
    "spanbert": Recipe(
        source="Joshi et al., 2020, section 3, https://arxiv.org/abs/1907.10529",
        settings={"objective": "mlm:strategy=spans+sbo"},
    ),
    "electra": Recipe(
        source="Clark et al., 2020, section 2 and appendix A, https://arxiv.org/abs/2003.10555",
        settings={"objective": "rtd", "generator": "masked_lm:width_rate=0.25,sharing=hard", **_BERT_ADAM},
    ),
    "debertav3": Recipe(  # the generator has the encoder's width and half of its layers
        source="He et al., 2023, section 3 and appendix, https://arxiv.org/abs/2111.09543",
        settings={
            "objective": "rtd",
            "generator": "masked_lm:width_rate=1,depth_rate=0.5,sharing=gdes",
            **_ROBERTA_ADAM,
        },
    ),
    "structbert": Recipe(
        source="Wang et al., 2020, section 2, https://arxiv.org/abs/1908.04577",
        settings={"objective": "mlm+word_order+sentence_structure", **_BERT_ADAM},
    ),
    "coco_lm": Recipe(  # the generator has the encoder's width and a third of its layers: 4 of 12
        source="Meng et al., 2021, section 3 and appendix, https://arxiv.org/abs/2102.08473",
        settings={
            "objective": "corrective_lm+scl",
            "generator": "masked_lm:width_rate=1,depth_rate=0.33,sharing=hard",
            **_ROBERTA_ADAM,
        },
    ),
    "gpt_bert": Recipe(
        source="Charpentier and Samuel, 2024, https://arxiv.org/abs/2410.24159",
        settings={"mix": "15*mntp:mask_rate=0.3,final_mask_rate=0.15; 1*causal_lm"},
    ),
}


def expand_recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that were given, on top of those of the recipe that they name.

    `electra+sop` is a recipe with another objective on the same input. An objective or a mixture that was given stands
    in place of the recipe's, whichever of the two that has. UserError where the recipe is not known, or is a mixture
    and can't take an objective in.
    """
    written = given.get("recipe")
    if written is None:
        return dict(given)
    name, _, added = (part.strip() for part in str(written).partition("+"))
    if name not in RECIPES:
        from objectives.spec import suggest

        known = f"{suggest(name, list(RECIPES))} Known: {', '.join(RECIPES)}"
        raise UserError(f"recipe '{name}' is unknown{known}; any of them with more, as in electra+sop")
    settings = dict(RECIPES[name].settings)
    if added and "mix" in settings:
        raise UserError(f"recipe '{name}' is a mixture, to which '+{added}' can't be added; write it out with --mix")
    if added:
        settings["objective"] += f"+{added}"
    if given.get("objective") is not None or given.get("mix") is not None:
        settings.pop("objective", None)
        settings.pop("mix", None)
    return settings | dict(given)
