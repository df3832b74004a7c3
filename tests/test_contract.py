"""The contract for outsiders: what is sound passes, and each flaw is told in one line."""

import re
from dataclasses import dataclass
from math import log
from pathlib import Path

import numpy as np
import pytest
import torch

import pretrain
from objectives.base import Corruption, Objective
from objectives.heads import DetectionHead
from objectives.masking import choose_tokens, count_exactly
from objectives.sequences import Target
from tests import contract
from tests.contract import Bench, Broken, check_objective

ROOT = Path(pretrain.__file__).parent
COUNTER = iter(range(10**9))


class CarelessHead(DetectionHead):
    """Starts far from chance, or has a weight that nothing uses, or cannot learn."""

    def __init__(self, config, target, flaw):
        super().__init__(config, target)
        self.flaw = flaw
        if flaw == "far":
            torch.nn.init.constant_(self.classifier.bias, 3.0)
        if flaw == "idle":
            self.idle = torch.nn.Linear(3, 3)

    def forward(self, encoded, targets):
        loss = super().forward(encoded, targets)
        if self.flaw == "mean":
            return type(loss)(loss.total / loss.count * encoded.hidden.shape[1], loss.count, loss.statistics)
        if self.flaw == "count":
            return type(loss)(loss.total, loss.count + 1, loss.statistics)
        if self.flaw == "blind":
            return type(loss)(loss.total * 0 + loss.total.detach() * 2, loss.count, loss.statistics)
        return loss


@dataclass(frozen=True, kw_only=True)
class Flawed(Objective):
    """Tell which tokens were written over by the one before, with one flaw."""

    name = "flawed"
    labels = {"is_stuttered": ("original", "stuttered")}

    flaw: str = "none"

    def corrupt(self, sequences, draws, context):
        chosen = choose_tokens(sequences, count_exactly(sequences, 0.15), draws)
        chosen = chosen[~sequences.is_special[chosen - 1]]
        shown = sequences.token_ids[chosen - 1]
        if self.flaw == "global":
            shown = shown * 0 + 5 + next(COUNTER) % 190
        if self.flaw == "batch":
            shown = np.full_like(shown, 5 + sequences.num_examples)
        if self.flaw == "special":
            shown = np.full_like(shown, context.vocabulary.sep_id)
        if self.flaw == "everywhere":
            chosen, shown = np.arange(len(sequences.token_ids)), 7
        changed = sequences.with_tokens(chosen, shown)
        asked = np.flatnonzero(sequences.is_free)
        values = (changed.token_ids[asked] != sequences.token_ids[asked]).astype(np.int64)
        if self.flaw == "label":
            values = values + 1
        if self.flaw == "type":
            values = values.astype(np.int32)
        if self.flaw == "twice":
            asked, values = np.repeat(asked, 2), np.repeat(values, 2)
        if self.flaw == "nowhere":
            asked, values = asked[:0], values[:0]
        name = "is_stutered" if self.flaw == "name" else "is_stuttered"
        return Corruption(sequences=changed, targets={name: Target(positions=asked, values=values)})

    def build_head(self, setting):
        return CarelessHead(setting.config, "is_stuttered", self.flaw)

    def chance(self, statistics):
        return {"ln 2": log(2)}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return contract.write_corpus(tmp_path_factory.mktemp("contract"))


@pytest.mark.parametrize(
    ("flaw", "check", "line"),
    [
        ("global", "check_is_pure", "the same examples come out differently the second time"),
        ("batch", "check_is_alone", r"the text of example 40 depends on the examples beside it"),
        ("special", "check_special_tokens", r"replaced by special ids \[3\]; draw from `vocabulary.ordinary_ids`"),
        ("everywhere", "check_special_tokens", r"does not begin with \[CLS\]; change free tokens only"),
        ("label", "check_targets", "'is_stuttered' has 2 labels and values 1 to 2"),
        ("type", "check_targets", "the values of 'is_stuttered' are int32; let them be int64 or float32"),
        ("twice", "check_targets", "the positions of 'is_stuttered' do not ascend, or one is asked twice"),
        ("nowhere", "check_targets", "'is_stuttered' is asked nowhere in 64 examples"),
        ("name", "check_targets", r"`labels` names \['is_stuttered'\], and asked is \['is_stutered'\]"),
        ("mean", "check_padding", "padding changes the loss flawed: "),
        ("far", "check_chance", "and chance 0.693; start the head near zero"),
        ("idle", "check_gradients", r"heads.flawed.idle.weight has no gradient"),
        ("count", "check_counts", r"the batch has {'flawed': (\d+)} targets, and the losses count {'flawed'"),
    ],
)
def test_a_flaw_is_told_in_one_line_and_what_is_sound_passes(written, flaw, check, line):
    run = getattr(contract, check)
    run(Bench(Flawed(), written))
    bench = Bench(Flawed(flaw=flaw), written)
    with pytest.raises(Broken, match=line) as caught:
        run(bench)
    assert "\n" not in str(caught.value)


@pytest.mark.slow
def test_every_check_is_made_and_an_assertion_names_the_objective(capsys):
    with pytest.raises(AssertionError) as caught:
        check_objective(Flawed(flaw="blind"))
    first, second, third = str(caught.value).splitlines()
    assert re.fullmatch(r"flawed: the first loss flawed is 1\.3[89]\d, and chance 0\.693; .*", first)  # twice ln 2
    assert second.endswith("has no gradient; leave out what the loss does not use")
    assert re.fullmatch(r"flawed: four .* by heart: a loss of 1\.3[89]\d, then 1\.3[89]\d", third)
    assert contract.main(["tests.test_contract.Flawed:flaw=type"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in lines] == ["holds"] * 3 + ["FAILS"] + ["holds"] * 5
    assert lines[0] == "flawed: holds  An example is a function of the seed and its number"


def test_a_name_that_is_not_known_is_one_line(capsys):
    assert contract.main(["npsp"]) == 2
    assert capsys.readouterr().err.startswith("error: objective 'npsp' is unknown; did you mean 'nsp'?")


@pytest.mark.slow
def test_the_objective_of_the_tutorial_keeps_the_contract(tmp_path, monkeypatch):
    tutorial = (ROOT / "docs" / "your_own_objective.md").read_text()
    (source,) = [
        block for block in re.findall(r"```python\n(.*?)```", tutorial, flags=re.S) if "class Stutter" in block
    ]
    (tmp_path / "mylab").mkdir()
    (tmp_path / "mylab" / "tasks.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    check_objective("mylab.tasks.Stutter:rate=0.2")
