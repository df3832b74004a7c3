"""Recipes: each can be trained, and whatever is given beside one wins."""

import dataclasses
from pathlib import Path

import pytest

from corpora.errors import UserError
from training.command import CommandError, parse
from training.config import Config
from training.recipes import RECIPES, expand_recipe


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_sets_what_there_is_and_has_no_mistake(name):
    config = parse(["--recipe", name])
    assert config.problems() == [] and config.recipe == name and config.out == f"runs/{name}"
    fields = {field.name for field in dataclasses.fields(Config)}
    assert RECIPES[name].settings.keys() <= fields - {"recipe", "out"}
    assert all(getattr(config, key) == value for key, value in RECIPES[name].settings.items())
    assert "https://" in RECIPES[name].source


PLACE = Path(__file__).parent.parent / "recipes"


def test_the_hour_is_a_run_of_five_objectives_without_a_mistake():
    config = parse(["--config", str(PLACE / "hour" / "mini.yaml")])
    assert config.problems() == [] and (config.max_minutes, config.encoder) == (60, "mini")
    names = [[objective.name for objective in arm.objectives] for arm in config.build_arms()]
    assert names == [["mlm", "nsp"], ["rtd", "sop"], ["sentence_shuffle"]]


@pytest.mark.parametrize("path", sorted((PLACE / "ten_minutes").glob("*.yaml")))
def test_the_ten_minute_recipes_are_runs_without_a_mistake(path):
    config = parse(["--config", str(path)])
    assert config.problems() == [] and config.max_minutes == 10
    assert "_".join(objective.name for arm in config.build_arms() for objective in arm.objectives) == path.stem
    assert f"--config recipes/ten_minutes/{path.name}" in path.read_text()


def names_of(*argv):
    return [[objective.name for objective in arm.objectives] for arm in parse(argv).build_arms()]


def test_recipes_are_what_their_papers_train():
    assert names_of("--recipe", "bert") == [["mlm", "nsp"]]
    assert names_of("--recipe", "roberta") == [["mlm"]]
    assert names_of("--recipe", "albert") == [["mlm", "sop"]]
    assert names_of("--recipe", "spanbert") == [["mlm", "sbo"]]
    assert names_of("--recipe", "electra") == [["rtd"]]
    assert names_of("--recipe", "debertav3") == [["rtd"]]
    assert sorted(names_of("--recipe", "structbert")[0]) == ["mlm", "sentence_structure", "word_order"]
    assert names_of("--recipe", "coco_lm") == [["corrective_lm", "scl"]]
    assert names_of("--recipe", "gpt_bert") == [["mntp"], ["causal_lm"]]


def test_recipes_have_the_rates_and_weights_of_their_papers():
    mlm, _ = parse(["--recipe", "bert"]).build_objectives()
    assert (mlm.mask_rate, mlm.mask_token_rate, mlm.random_token_rate) == (0.15, 0.8, 0.1)
    (rtd,) = parse(["--recipe", "electra"]).build_objectives()
    assert (rtd.weight, rtd.mask_rate) == (50, 0.15)
    electra, deberta = (parse(["--recipe", name]).build_generator() for name in ("electra", "debertav3"))
    assert (electra.width_rate, electra.depth_rate, electra.sharing) == (0.25, 1, "hard")
    assert (deberta.width_rate, deberta.depth_rate, deberta.sharing) == (1, 0.5, "gdes")
    assert [arm.weight for arm in parse(["--recipe", "gpt_bert"]).build_arms()] == [15, 1]


def test_options_and_yaml_win_over_a_recipe_and_options_over_yaml(tmp_path: Path):
    (tmp_path / "run.yaml").write_text("recipe: electra\nadam_beta2: 0.9\nadam_epsilon: 1e-8\n")
    config = parse(["--config", str(tmp_path / "run.yaml"), "--adam_epsilon", "1e-5"])
    assert (config.objective, config.adam_beta2, config.adam_epsilon) == ("rtd", 0.9, 1e-5)
    config = parse(["--recipe", "electra", "--generator", "uniform", "--objective", "rtd:mask_rate=0.25"])
    assert (config.generator, config.objective, config.adam_beta2) == ("uniform", "rtd:mask_rate=0.25", 0.999)
    assert parse(["--config", str(tmp_path / "run.yaml"), "--recipe", "bert"]).objective == "mlm+nsp"


def test_an_objective_that_is_given_stands_in_place_of_a_recipes_mixture_and_the_other_way_round():
    assert (config := parse(["--recipe", "gpt_bert", "--objective", "mlm"])).mix is None and config.objective == "mlm"
    config = parse(["--recipe", "bert", "--mix", "2*mlm; nsp"])
    assert [len(arm.objectives) for arm in config.build_arms()] == [1, 1] and config.adam_beta2 == 0.999


def test_a_recipe_takes_another_objective_in():
    config = parse(["--recipe", "electra+sentence_shuffle:weight=0.5"])
    assert [objective.name for objective in config.build_objectives()] == ["rtd", "sentence_shuffle"]
    assert config.build_objectives()[1].weight == 0.5
    assert (config.adam_beta2, config.out) == (0.999, "runs/electra+sentence_shuffle")


def test_electra_with_sentence_order():
    assert names_of("--recipe", "electra+sop") == [["rtd", "sop"]]


@pytest.mark.parametrize(
    ("recipe", "problem"),
    [
        ("brt", "recipe 'brt' is unknown; did you mean 'bert'? Known: bert, roberta, "),
        ("", "recipe '' is unknown. Known: "),
        ("gpt_bert+nsp", "recipe 'gpt_bert' is a mixture, to which '+nsp' can't be added; write it out with --mix"),
        ("bert+sentence_shuffle", "nsp and sentence_shuffle both decide which sentences stand where"),
        ("roberta+npsp", "objective 'npsp' is unknown; did you mean 'nsp'?"),
    ],
)
def test_a_mistake_is_one_line(recipe, problem):
    with pytest.raises(CommandError) as caught:
        parse(["--recipe", recipe])
    (line,) = str(caught.value).splitlines()
    assert problem in line


def test_the_settings_of_a_recipe_are_recorded_and_read_back():
    config = parse(["--recipe", "electra+sentence_shuffle", "--seed", "3"])
    assert config.as_dict()["recipe"] == "electra+sentence_shuffle" and config.as_dict()["adam_beta2"] == 0.999
    assert Config.from_dict(config.as_dict()) == config


def test_without_a_recipe_nothing_is_added():
    assert expand_recipe({"seed": 3}) == {"seed": 3} and expand_recipe({"recipe": None}) == {"recipe": None}
    with pytest.raises(UserError):
        expand_recipe({"recipe": "electra-sop"})
