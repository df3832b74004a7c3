"""What a run can be told, and what is wrong with it."""

import dataclasses
import json
import math

import pytest

from corpora.errors import UserError
from generators import GENERATORS
from generators.uniform import Uniform
from objectives import OBJECTIVES, Objective, build_objectives
from objectives.mlm import MaskedLanguageModeling
from objectives.nsp import NextSentencePrediction
from objectives.rtd import ReplacedTokenDetection
from objectives.spec import build_plugin, find_problems, parse_spec
from training.config import CHOICES, GROUPS, HARMLESS, Config


def problems_of(**settings: object) -> list[str]:
    return Config(**settings).problems()  # type: ignore[arg-type]  # wrong values are what is tested


def test_the_defaults_are_sound() -> None:
    assert Config().problems() == []


def test_settings_survive_json() -> None:
    config = Config(objective={"rtd": {"mask_rate": 0.25}, "nsp": None}, trackers=("tensorboard",), seed=2**63 - 1)
    assert Config.from_dict(json.loads(json.dumps(config.as_dict()))) == config


@pytest.mark.parametrize(
    ("objective", "out"),
    [
        ("rtd", "runs/rtd"),
        ("mlm + nsp:weight=2", "runs/mlm+nsp"),
        ("rtd:mask_rate=0.25,weight=5+nsp", "runs/rtd+nsp"),
        ({"rtd": {"mask_rate": 0.25}, "nsp": None}, "runs/rtd+nsp"),
        ("my.own.Objective:weight=2", "runs/Objective"),
    ],
)
def test_the_folder_is_named_after_the_objectives(objective: str | dict[str, object], out: str) -> None:
    assert Config(objective=objective).out == out
    assert Config(objective=objective, out="elsewhere").out == "elsewhere"


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in CHOICES.items() for value in values])
def test_every_choice_is_accepted(name: str, value: str) -> None:
    assert problems_of(**{name: value}) == []


@pytest.mark.parametrize("name", CHOICES)
def test_any_other_choice_is_told_with_the_ones_there_are(name: str) -> None:
    (problem,) = problems_of(**{name: "cubic"})
    assert problem == f"--{name} is 'cubic'; it must be one of {', '.join(CHOICES[name])}"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_steps", 0),
        ("batch_size", 0),
        ("micro_batch_size", -1),
        ("max_length", 7),
        ("vocab_size", 99),
        ("workers", -1),
        ("threads", 0),
        ("keep", 1),
        ("seed", -1),
        ("seed", 2**63),
        ("held_out_rate", 1.0),
        ("held_out_rate", math.nan),
        ("warmup_rate", -0.1),
        ("decay_rate", 0.0),
        ("decay_rate", 1.5),
        ("adam_beta2", 1.0),
        ("learning_rate", 0.0),
        ("learning_rate", math.inf),
        ("max_minutes", -1.0),
        ("weight_decay", math.inf),
        ("corpus", " "),
    ],
)
def test_a_value_out_of_range_is_told_once_and_by_name(name: str, value: object) -> None:
    (problem,) = problems_of(**{name: value})
    assert problem.startswith(f"--{name} is ")


@pytest.mark.parametrize(
    ("name", "value"),
    [("seed", 2**63 - 1), ("max_steps", 1), ("held_out_rate", 0.0), ("dropout", 0.0), ("weight_decay", 0.0)],
)
def test_the_ends_of_a_range_are_accepted(name: str, value: object) -> None:
    assert problems_of(**{name: value}) == []


def test_all_problems_are_told_at_once() -> None:
    found = problems_of(
        objective="rdt+nsp:wieght=2,weight=x", encoder="tinny", generator="unifrm", schedule="cubic", max_steps=0
    )
    assert [problem.split(";")[0].split(". ")[0] for problem in found] == [
        "objective 'rdt' is unknown",
        "objective 'nsp' has no option 'wieght'",
        "objective 'nsp': weight is 'x'",
        "generator 'unifrm' is unknown",
        "encoder 'tinny' is unknown",
        "--schedule is 'cubic'",
        "--max_steps is 0",
    ]
    assert "did you mean 'rtd'?" in found[0] and "did you mean 'weight'?" in found[1]
    assert "did you mean 'uniform'?" in found[3] and "did you mean 'tiny'?" in found[4]


def test_two_objectives_that_arrange_do_not_compose() -> None:
    (problem,) = problems_of(objective="nsp+sentence_shuffle")
    assert "nsp and sentence_shuffle" in problem


def test_every_group_begins_at_a_setting_and_the_first_one_at_the_first() -> None:
    names = [field.name for field in dataclasses.fields(Config)]
    assert set(GROUPS) <= set(names) and next(iter(GROUPS)) == names[0]
    assert HARMLESS <= set(names)


@pytest.mark.parametrize(
    "spec",
    [
        "rtd:mask_rate=0.25,weight=5+nsp",
        " rtd : mask_rate = 0.25 , weight=5 + nsp ",
        {"rtd": {"mask_rate": 0.25, "weight": 5}, "nsp": None},
        {"rtd": "mask_rate=0.25,weight=5", "nsp": {}},
    ],
)
def test_text_and_mappings_mean_the_same(spec: str | dict[str, object]) -> None:
    assert build_objectives(spec) == (ReplacedTokenDetection(mask_rate=0.25, weight=5.0), NextSentencePrediction())


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("mlm+mlm", "'mlm' stands twice"),
        ("mlm:mask_rate", "option 'mask_rate' of 'mlm' has no value"),
        ("mlm:mask_rate=.1,mask_rate=.2", "option 'mask_rate' of 'mlm' stands twice"),
        ("mlm:mask_rate=", "mask_rate is ''; it must be a number"),
        ("mlm:mask_rate=1.5", "a rate is a fraction from 0 to 1"),
        ("mlm:weight=nan", "weight is nan; it must be finite"),
        ("mlm:weight=none", "weight can't be empty"),
        ("sentence_shuffle:min_sentences=2.5", "min_sentences is '2.5'; it must be a whole number"),
        ("sentence_shuffle:min_sentences=1", "at least 2 are needed"),
        ("", "objective '' is unknown"),
        ("mlm+", "objective '' is unknown"),
        ({"mlm": 3}, "'3' can't be the options of 'mlm'"),
        ({"mlm": {"mask_rate": True}}, "mask_rate is 'True'; it must be a number"),
        ({"mlm": {"mask_rate": [1]}}, "mask_rate is '[1]'; it must be a number"),
        ({"sentence_shuffle": {"min_sentences": 2.5}}, "min_sentences is 2.5; it must be a whole number"),
        ({"sentence_shuffle": {"min_sentences": math.inf}}, "min_sentences is 'inf'; it must be a whole number"),
        ("no.such.module", "objective 'no.such.module' can't be imported"),
        ("objectives.mlm.Nothing", "objective 'objectives.mlm.Nothing' can't be imported"),
        (".", "objective '.' is unknown"),
        ("os.path", "objective 'os.path' is not a dataclass that can be made"),
        ("objectives.Objective", "objective 'objectives.Objective' is not a dataclass that can be made"),
        ("generators.uniform.Uniform", "must extend objectives.base.Objective"),
    ],
)
def test_a_wrong_specification_is_one_line(spec: str | dict[str, object], found: str) -> None:
    (problem,) = find_problems("objective", spec, OBJECTIVES, Objective)
    assert found in problem and "\n" not in problem


def test_a_dotted_path_finds_a_class_of_ones_own() -> None:
    path = "objectives.mlm.MaskedLanguageModeling:mask_rate=0.3"
    assert problems_of(objective=path) == []
    assert build_objectives(path) == (MaskedLanguageModeling(mask_rate=0.3),)


def test_a_generator_is_built_alone() -> None:
    assert Config(generator="uniform").build_generator() == Uniform()
    assert problems_of(generator="uniform+unigram") == ["one generator is needed, found 2 in 'uniform+unigram'"]
    (problem,) = problems_of(generator="masked_lm:sharing=hrd")
    assert problem == "generator 'masked_lm': sharing is 'hrd'; it must be one of none, hard, gdes"


def test_a_text_option_may_be_called_none() -> None:
    made = build_plugin("generator", "masked_lm", {"sharing": "none"}, GENERATORS)
    assert made.sharing == "none"  # type: ignore[attr-defined]  # masked_lm has it


def test_a_wrong_option_raises_where_it_is_used() -> None:
    with pytest.raises(UserError, match="has no option 'mask'; did you mean 'mask_rate'"):
        build_objectives("rtd:mask=1")
    assert parse_spec("a:b=1") == {"a": {"b": "1"}}
