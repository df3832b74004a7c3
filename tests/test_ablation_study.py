"""A study's file: what it may say, and every mistake in it told at once."""

import pytest
import yaml

from ablation.budget import Budget, Rates, choose_steps, parse_budget
from ablation.command import build_parser, open_study
from ablation.plan import ArmPlan, Plan, check_same, choose_snapshots, read_plan, write_plan
from ablation.questions import Probing
from ablation.results import CorpusRecord
from ablation.study import make_study, read_study
from corpora.errors import UserError


def write(folder, **settings):
    """Write a study of two arms with other settings, and return its path."""
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump({"arms": ["mlm", "rtd"], "budget": "10m"} | settings, sort_keys=False))
    return str(path)


def problems_of(folder, **settings) -> list[str]:
    with pytest.raises(UserError) as caught:
        read_study(write(folder, **settings))
    return str(caught.value).splitlines()


def test_a_study_has_the_defaults_that_it_says(tmp_path):
    study = read_study(write(tmp_path))
    assert [(arm.name, arm.kind) for arm in study.arms] == [
        ("mlm", "trained"),
        ("rtd", "trained"),
        ("untrained", "untrained"),
    ]
    assert study.seeds == (0, 1, 2, 3, 4) and study.fairness == "flops" and study.anchor == "mlm"
    assert study.budget == Budget(unit="time", amount=600)
    assert study.config_of(study.arms[1]).objective == "rtd"
    assert study.config_of(study.arms[1]).threads == 1


def test_arms_have_settings_of_their_own_over_common_ones(tmp_path):
    arms = {"mlm": {"learning_rate": 0.001}, "both": "mlm+nsp", "electra": {"recipe": "electra"}}
    study = read_study(write(tmp_path, arms=arms, common={"encoder": "mini", "learning_rate": 0.002}))
    configs = {arm.name: study.config_of(arm) for arm in study.trained}
    assert {name: config.encoder for name, config in configs.items()} == dict.fromkeys(arms, "mini")
    assert [config.learning_rate for config in configs.values()] == [0.001, 0.002, 0.002]
    assert configs["both"].objective == "mlm+nsp"
    assert configs["electra"].objective == "rtd" and "sharing=hard" in configs["electra"].generator


def test_a_grid_is_an_arm_for_each_cell(tmp_path):
    grid = {"rtd.mask_rate": [0.15, 0.3], "generator.width_rate": [0.25, 0.5], "learning_rate": [0.001]}
    study = read_study(write(tmp_path, arms={"rtd": {"objective": "rtd:weight=10", "grid": grid}}))
    assert [arm.name for arm in study.trained] == [
        f"rtd-mask_rate={rate},width_rate={width},learning_rate=0.001" for rate in (0.15, 0.3) for width in (0.25, 0.5)
    ]
    last = study.config_of(study.trained[-1])
    assert last.build_objectives()[0].mask_rate == 0.3 and last.build_objectives()[0].weight == 10
    assert last.build_generator().width_rate == 0.5 and last.learning_rate == 0.001


def test_an_option_alone_is_the_only_objectives(tmp_path):
    study = read_study(write(tmp_path, arms={"mlm": {"grid": {"mask_rate": [0.15, 0.4]}}}))
    assert [study.config_of(arm).build_objectives()[0].mask_rate for arm in study.trained] == [0.15, 0.4]
    (problem,) = problems_of(tmp_path, arms={"mlm+nsp": {"grid": {"mask_rate": [0.15]}}})
    assert problem == "arm mlm+nsp: grid: 'mask_rate' is no setting; write OBJECTIVE.OPTION, for one of mlm, nsp"


def test_all_mistakes_are_told_at_once(tmp_path):
    told = problems_of(
        tmp_path,
        sedes=3,
        common={"encodr": "tiny", "seed": 3},
        arms={"mlm": {"objective": "mln"}, "rtd": {"threads": 2, "learning_rate": "fast"}},
        budget={"flop": 1},
        fairness="money",
        anchor="rdt",
        probes={"only": ["bigram_shfit"], "sise": 100},
        seeds=0,
        hypotheses=[{"name": "one", "better": "rdt"}],
    )
    text = "\n".join(told)
    for words in (
        "sedes is unknown; did you mean seeds?",
        "encodr is unknown; did you mean encoder?",
        "common: seed is what the study sets for each run; take it out",
        "arm rtd: threads is the same for all runs; put it under common:",
        "arm mlm: objective 'mln' is unknown; did you mean 'mlm'?",
        "learning_rate is 'fast'; it must be a number",
        "budget is {'flop': 1}; write flops: 1e13, tokens: 2e6, steps: 500 or time: 10m, one of them",
        "fairness is 'money'; it must be one of flops, tokens, steps, time",
        "anchor 'rdt' is no arm; did you mean rtd?",
        "probes: sise is unknown; did you mean size?",
        "probe 'bigram_shfit' is unknown; did you mean bigram_shift?",
        "seeds is 0; write how many, or a list of different whole numbers from 0 on",
        "hypothesis one has no claim",
    ):
        assert words in text, words


def test_what_is_learned_may_be_common(tmp_path):
    path = write(tmp_path, common={"objective": "mlm"}, arms={"plain": {}, "wide": {"encoder": "mini"}, "rtd": "rtd"})
    study = read_study(path)
    assert [study.config_of(arm).build_objectives()[0].name for arm in study.trained] == ["mlm", "mlm", "rtd"]
    (problem,) = problems_of(tmp_path, common={"objective": "mlm"}, arms={"mlm": {}, "nsp": {"dropout": 0.1}})
    assert problem == (
        "arm nsp is called like an objective, and would learn the common one; add objective: nsp, or call it otherwise"
    )
    told = problems_of(tmp_path, common={"objective": "mlmm"}, arms={"plain": {}, "wide": {"encoder": "mini"}})
    assert [line.partition(" is unknown")[0] for line in told] == ["common: objective 'mlmm'"]
    told = problems_of(tmp_path, common={"objective": "mlm"}, arms=["rtd", "nsp"])
    assert told == ["common: objective is learned by no arm; take it out"]


def test_a_common_recipe_stays_under_an_objective_of_an_arms_own(tmp_path):
    arms = {"plain": {}, "masks": {"objective": "rtd:mask_rate=0.25"}, "bert": {"recipe": "bert"}}
    study = read_study(write(tmp_path, common={"recipe": "electra"}, arms=arms))
    plain, masks, bert = (study.config_of(arm) for arm in study.trained)
    assert masks.generator == plain.generator != bert.generator
    assert masks.build_objectives()[0].mask_rate == 0.25
    assert [objective.name for objective in bert.build_objectives()] == ["mlm", "nsp"]


def test_a_grid_over_what_is_learned_is_the_arms_own(tmp_path):
    arms = {"w": {"grid": {"objective": ["mlm", "nsp"]}}, "rest": {}}
    study = read_study(write(tmp_path, common={"mix": "mlm; nsp"}, arms=arms))
    names = [[o.name for each in study.config_of(arm).build_arms() for o in each.objectives] for arm in study.trained]
    assert names == [["mlm"], ["nsp"], ["mlm", "nsp"]]


def test_what_a_command_line_changes_leaves_what_is_learned(tmp_path):
    path = write(tmp_path, common={"objective": "mlm", "dropout": 0.1}, arms={"plain": {}, "wide": {"encoder": "mini"}})
    study, _ = open_study(build_parser().read([path, "--corpus", "builtin"]))
    assert [study.config_of(arm).build_objectives()[0].name for arm in study.trained] == ["mlm", "mlm"]
    assert {study.config_of(arm).dropout for arm in study.trained} == {0.1}


def test_two_arms_of_one_name_are_refused(tmp_path):
    (problem,) = problems_of(tmp_path, arms=["mlm", "rtd", "mlm"])
    assert problem == "two arms are called 'mlm'; give each a name of its own: NAME: {objective: ...}"
    path = tmp_path / "twice.yaml"
    path.write_text("budget: 10m\narms:\n  mlm: mlm\n  mlm: rtd\n")
    with pytest.raises(UserError, match="line 4: not YAML: 'mlm' stands there again"):
        read_study(str(path))
    (problem,) = problems_of(tmp_path, arms={"untrained": "mlm"})
    assert "'untrained' is the arm that learns nothing" in problem
    (problem,) = problems_of(tmp_path, arms={"../mlm": "mlm"})
    assert "can't be the name of a folder" in problem


def test_a_study_that_is_not_there_is_told(tmp_path):
    with pytest.raises(UserError, match="there is no study at .*none.yaml; give a YAML file"):
        read_study(str(tmp_path / "none.yaml"))
    with pytest.raises(UserError, match="has no arms; write arms:"):
        make_study({"budget": "10m"}, "study.yaml")
    (problem,) = problems_of(tmp_path, reference="./nowhere")
    assert problem == "reference: ./nowhere has no config.json; give a `transformers` folder, or a name"


@pytest.mark.parametrize(
    ("written", "unit", "amount"),
    [
        ("10m", "time", 600),
        ("90s", "time", 90),
        ("1.5h", "time", 5400),
        ("500steps", "steps", 500),
        ("2e6 tokens", "tokens", 2e6),
        ("1e13FLOPs", "flops", 1e13),
        ({"flops": "1e13"}, "flops", 1e13),
        ({"time": "2m"}, "time", 120),
        ({"time": 30}, "time", 30),
    ],
)
def test_budgets_are_read(written, unit, amount):
    assert parse_budget(written) == Budget(unit=unit, amount=amount)


@pytest.mark.parametrize(
    "written", ["10", "10x", "-3m", "0m", "1.2.3h", None, {}, {"flops": -1}, {"steps": 1, "flops": 2}]
)
def test_what_is_no_budget_is_refused(written):
    with pytest.raises(UserError, match="budget is"):
        parse_budget(written)


RATES = {"mlm": Rates(flops=1e9, tokens=1000, seconds=0.1), "rtd": Rates(flops=1.7e9, tokens=900, seconds=0.3)}


@pytest.mark.parametrize(
    ("unit", "amount", "fairness", "steps"),
    [
        ("flops", 3.4e11, "flops", {"mlm": 340, "rtd": 200}),
        ("time", 34, "flops", {"mlm": 340, "rtd": 200}),
        ("steps", 340, "flops", {"mlm": 340, "rtd": 200}),
        ("tokens", 9e4, "tokens", {"mlm": 90, "rtd": 100}),
        ("time", 30, "time", {"mlm": 300, "rtd": 100}),
        ("flops", 1e11, "steps", {"mlm": 100, "rtd": 100}),
    ],
)
def test_a_budget_is_what_the_anchor_does_with_it(unit, amount, fairness, steps):
    assert choose_steps(Budget(unit=unit, amount=amount), fairness, RATES, "mlm") == steps


def test_another_anchor_gives_others_more():
    assert choose_steps(Budget(unit="time", amount=60), "flops", RATES, "rtd") == {"mlm": 340, "rtd": 200}


def test_a_budget_too_small_for_one_step_is_told_for_each_arm():
    with pytest.raises(UserError) as caught:
        choose_steps(Budget(unit="flops", amount=5e8), "flops", RATES, "mlm")
    assert str(caught.value).splitlines() == [
        "the budget of 5e+08 FLOPs a run is 0.5 of a step of the arm 'mlm'; give at least 1e+09 FLOPs",
        "the budget of 5e+08 FLOPs a run is 0.29 of a step of the arm 'rtd'; give at least 1.7e+09 FLOPs",
    ]


def make_plan(**study) -> Plan:
    arm = ArmPlan(
        name="mlm",
        steps=340,
        rates=RATES["mlm"],
        flops={"encoder": 8e8, "heads": 2e8},
        formula=("encoder: 8e+08",),
        parameters={"encoder": 100, "heads": 10, "generators": 0},
        snapshots=(10, 100),
    )
    corpus = CorpusRecord(name="t", fingerprint="f", documents=1, sentences=2, tokens=3, unigram_entropy=0.5)
    return Plan(study=study, arms=(arm,), corpus=corpus, machine="m", versions={"torch": "2"}, command="c")


def test_a_plan_is_read_as_it_was_written(tmp_path):
    plan = make_plan(seeds=3, arms=["mlm"])
    write_plan(tmp_path, plan)
    assert read_plan(tmp_path) == plan
    assert read_plan(tmp_path / "nothing") is None
    (tmp_path / "plan.json").write_text('{"format": 1}')
    with pytest.raises(UserError, match="plan.json can't be read as the plan of a study"):
        read_plan(tmp_path)


def test_the_folder_of_another_study_is_refused(tmp_path):
    plan = make_plan(seeds=3, arms=["mlm"])
    check_same(tmp_path, plan, {"arms": ["mlm"], "seeds": 3})
    with pytest.raises(UserError, match="holds another study: seeds is 3 there, and 5 here; give --out a new folder"):
        check_same(tmp_path, plan, {"seeds": 5, "arms": ["mlm"]})
    with pytest.raises(UserError, match="holds another study: budget is null there"):
        check_same(tmp_path, plan, {"seeds": 3, "arms": ["mlm"], "budget": "10m"})


def test_snapshots_are_spaced_by_halves():
    assert choose_snapshots(Probing(), 320) == (10, 20, 40, 80, 160)
    assert choose_snapshots(Probing(), 3) == (1, 2)
    assert choose_snapshots(Probing(), 1) == ()
    assert choose_snapshots(Probing(trajectory=(500, 5, 320)), 320) == (5,)
    assert choose_snapshots(Probing(trajectory="none"), 320) == ()
    assert choose_snapshots(Probing(suite="none"), 320) == ()
