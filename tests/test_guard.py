"""An objective that sits at chance is told so, once, when it is due, with causes that the run itself knows."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.small_runs import make_config, make_run, read_log
from training.causes import Facts, learned_positions, list_causes, read_facts
from training.evaluate import error_of_mean, evaluate
from training.gradients import gradients_by_loss, norm_of, table_gradients
from training.guard import describe_stuck, find_stuck, stand
from training.log import Log
from training.loop import pretrain

LN2 = math.log(2)
FACTS = Facts(
    name="nsp",
    width=128,
    init_range=1 / math.sqrt(128),
    learns_positions=False,
    random_table=False,
    peak=0.003,
    tokens=3_000_000,
    planned_tokens=6_000_000,
    passes=1.0,
    targets=100.0,
)


def sits(figures, levels):
    return all(each.sits for each in stand(figures, levels))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("guard")


def test_a_loss_sits_within_one_percent_or_two_standard_errors_of_its_lowest_level():
    levels = {"ln V": 9.0, "unigram": 7.0}
    assert sits({"loss": 6.94, "standard_error": 0.01}, levels)  # 7.00 - .07 = 6.93
    assert not sits({"loss": 6.92, "standard_error": 0.01}, levels)
    assert sits({"loss": 6.92, "standard_error": 0.05}, levels)  # 7.00 - .10 = 6.90
    assert sits({"loss": 8.0}, levels) and sits({"loss": math.nan}, levels)


def test_kept_tokens_do_not_hide_the_plateau():
    """BERT's 80/10/10 at the word frequencies: a tenth of the targets is copied."""
    assert sits({"loss": 6.43, "hidden_loss": 7.1, "standard_error": 0.01}, {"unigram": 7.015})


def test_a_detection_is_judged_by_its_auroc_not_by_its_imbalance():
    entropy = -0.15 * math.log(0.15) - 0.85 * math.log(0.85)  # .423: far below ln 2, and nothing learned
    figures = {"loss": entropy, "standard_error": 0.001, "targets": 100_000, "positive_rate": 0.15}
    assert sits(figures | {"auroc": 0.51}, {"ln 2": LN2})
    assert not sits(figures | {"auroc": 0.56}, {"ln 2": LN2})
    (standing,) = stand(figures | {"auroc": 0.56, "targets": 200}, {"ln 2": LN2})
    assert standing.margin == pytest.approx(2 * math.sqrt(201 / (12 * 30 * 170))) and standing.sits  # .115


def test_one_label_a_sequence_has_left_chance_when_its_loss_or_its_accuracy_has():
    figures = {"loss": LN2, "targets": 1024, "majority": 0.5}
    assert sits(figures | {"accuracy": 0.545}, {"ln 2": LN2})
    assert not sits(figures | {"accuracy": 0.56}, {"ln 2": LN2})  # its probabilities are off
    assert not sits(figures | {"accuracy": 0.53, "loss": 0.68}, {"ln 2": LN2})
    assert sits(figures | {"accuracy": 0.6, "targets": 64}, {"ln 2": LN2})  # 2 x .0625


def test_the_standard_error_is_that_of_a_ratio_over_micro_batches():
    rng = np.random.default_rng(0)
    counts = rng.integers(5, 15, 40).astype(float)
    totals = counts * (2 + rng.normal(size=40))
    mean = totals.sum() / counts.sum()
    expected = math.sqrt(((totals - mean * counts) ** 2).sum() * 40 / 39) / counts.sum()
    moments = np.array([40, totals.sum(), counts.sum(), totals @ totals, totals @ counts, counts @ counts])
    assert error_of_mean(moments) == {"standard_error": pytest.approx(expected)}
    assert error_of_mean(np.array([1, 5, 10, 25, 50, 100.0])) == {}


def test_the_error_does_not_depend_on_what_is_learned_about_but_on_how_the_losses_scatter(folder):
    run = make_run(make_config(folder, objective="mlm", micro_batch_size=2))
    figures = evaluate(run)["mlm"]
    (held_out,) = run.held_out
    pairs = []
    run.model.eval()
    with torch.no_grad():
        for number in range(held_out.per_step):
            loss = run.model(held_out[number])["mlm"]
            pairs.append((float(loss.total), loss.count))
    totals, counts = np.array(pairs).T
    residuals = totals - totals.sum() / counts.sum() * counts
    assert figures["targets"] == counts.sum()
    assert figures["standard_error"] == pytest.approx(
        math.sqrt((residuals**2).sum() * len(pairs) / (len(pairs) - 1)) / counts.sum(), rel=1e-5
    )
    assert "table_gradient" not in figures  # one loss: its norm is in the log already


@pytest.mark.parametrize("sharing", ["hard", "gdes", "none"])
def test_the_gradients_on_the_shared_table_are_those_of_backward(folder, sharing):
    run = make_run(make_config(folder, objective="rtd", generator=f"masked_lm:sharing={sharing}"))
    norms = table_gradients(run)
    batch = run.held_out[0][0]
    counts = run.model.count_targets(batch)
    for name in ("rtd", "rtd_generator"):
        run.model.zero_grad()
        (run.model(batch)[name].total / counts[name] * run.model.weights[name]).backward()
        table = run.model.encoder.get_input_embeddings()
        found = [p.grad for p in table.parameters() if p.grad is not None]
        expected = math.sqrt(sum(float(grad.double().square().sum()) for grad in found))
        assert norms[name] == pytest.approx(expected, rel=1e-5)
    assert (norms["rtd_generator"] > 0) == (sharing != "none") and norms["rtd"] > 0
    assert evaluate(run)["rtd"]["table_gradient"] == pytest.approx(norms["rtd"], rel=1e-6)


def test_gradients_by_loss_add_up_to_what_is_trained_and_leave_nothing_behind(folder):
    run = make_run(make_config(folder, objective="mlm+nsp:weight=0.5"))
    parameters = [p for p in run.model.parameters() if p.requires_grad]
    batches = [run.train[0], run.train[1]]
    run.model.eval()
    found = gradients_by_loss(run, batches, parameters)
    assert all(p.grad is None for p in parameters)
    counts = [run.model.count_targets(batch) for batch in batches]
    for batch in batches:
        losses = run.model(batch)
        sum(
            run.model.weights[name] * loss.total / sum(each[name] for each in counts) for name, loss in losses.items()
        ).backward()
    for place, parameter in enumerate(parameters):
        parts = [each[place] for each in found.values() if each[place] is not None]
        torch.testing.assert_close(sum(parts), parameter.grad, rtol=1e-4, atol=1e-7)
    assert norm_of([None, None]) == 0


def at_chance(run):
    """Let every loss of the run stand where nothing was learned, and many tokens be read."""
    run.step, run.tokens = run.max_steps // 2, 5_000_000
    for name, levels in run.chance.items():
        run.figures[name] = {"loss": min(levels.values()), "standard_error": 0.001, "targets": 16.0}
    return run


def test_it_is_told_once_and_not_before_a_quarter_of_the_steps(folder):
    run = at_chance(make_run(make_config(folder, objective="mlm+nsp")))
    assert list(find_stuck(run, ())["losses"]) == ["mlm", "nsp"]
    assert list(find_stuck(run, {"mlm"})["losses"]) == ["nsp"]
    assert find_stuck(run, {"mlm", "nsp"}) == {}
    run.step = 2  # of 12
    assert find_stuck(run, ()) == {}
    run.step, run.figures["nsp"] = 3, {"loss": 0.6, "standard_error": 0.001, "targets": 16.0}
    assert list(find_stuck(run, ())["losses"]) == ["mlm"]


def test_an_arm_of_a_mixture_is_due_after_a_quarter_of_its_own_span(folder):
    run = at_chance(make_run(make_config(folder, mix="mlm@0-0.5; nsp@0.5-1")))
    told = {}
    for run.step in range(1, 13):
        told[run.step] = list(find_stuck(run, ()).get("losses", {}))
    assert told[1] == [] and told[2] == told[5] == ["mlm"]
    assert told[7] == [] and told[8] == told[12] == ["nsp"]


@pytest.mark.slow
def test_a_run_says_it_in_its_log_once_and_a_resumed_one_no_second_time(tmp_path, capsys):
    config = make_config(tmp_path, objective="sentence_shuffle", eval_every=3, learning_rate=1e-9, max_steps=9)
    pretrain(config)
    rows = [row for row in read_log(tmp_path / "run") if row["split"] == "held_out"]
    assert [row["step"] for row in rows if "stuck" in row] == [3]
    shown = capsys.readouterr().err
    assert shown.count("at chance after") == 1 and "1. " in shown and "docs/stuck.md" in shown
    assert max(map(len, shown[shown.index("at chance after") :].split("\n\n")[0].splitlines())) <= 80
    run = make_run(config)
    for step, told in ((6, {"sentence_shuffle"}), (2, set())):  # resumed after it was said, and before
        log = Log(tmp_path / "run", run.accelerator, run.chance, run.max_steps)
        log.rewind(step)
        assert log.told == told


def test_the_causes_come_in_the_order_of_their_likelihood():
    worst = replace(
        FACTS,
        init_range=0.02,
        learns_positions=True,
        random_table=True,
        peak=0.1,
        tokens=100_000,
        planned_tokens=300_000,
        passes=9.0,
        targets=1.0,
        generator=0.99,
    )
    advice = [cause.advice for cause in list_causes([worst])]
    marks = ["init_range", "rotary", "max_steps", "mlm+nsp", "gdes", "cooccurrence", "learning_rate", "corpus"]
    assert len(advice) == len(marks) and all(mark in text for mark, text in zip(marks, advice, strict=True))
    assert list_causes([FACTS]) == []
    assert len(list_causes([worst, worst])) == len(marks)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"targets": 1.0}, "alone on its input"),
        ({"targets": 1.0, "others": ("mlm",)}, "follows mlm, which has left chance, later"),
        ({"targets": 1.0, "others": ("mlm",), "stuck_others": ("mlm",)}, "mlm beside it has not left chance"),
        ({"peak": 0.0005}, "0.0005 is low"),
        ({"tokens": 900_000}, "0.90 M tokens are few: the encoder tiny needed about 1 M"),
        ({"generator": 0.9, "replaced": 0.01}, "1.0 % are replaced"),
        ({"passes": 12.0}, "read 12 times"),
        ({"options": (("pooling", "cls"),)}, "nsp asks the harder way, pooling=cls"),
    ],
)
def test_a_cause_is_what_the_run_knows(changes, said):
    (cause,) = list_causes([replace(FACTS, **changes)])
    assert said in cause.cause


def test_a_start_of_two_hundredths_is_narrow_at_width_128_and_not_at_768():
    assert list_causes([replace(FACTS, init_range=0.02)])[0].advice.startswith("--init_range width")
    assert list_causes([replace(FACTS, init_range=0.02, width=768, peak=0.0005)]) == []
    assert (
        list_causes([replace(FACTS, init_range=None, learns_positions=True, peak=1.0)]) == []
    )  # it has learned before


def test_facts_are_read_from_the_run(folder):
    config = make_config(folder, objective="rtd+sentence_shuffle", encoder="electra-tiny", init_range="stock")
    run = make_run(config)
    run.figures = evaluate(run)
    run.step, run.tokens = 3, 1000
    assert learned_positions(run.model.encoder) == ["embeddings.position_embeddings"]
    facts = read_facts(run, "sentence_shuffle", {"sentence_shuffle", "rtd"})
    assert (facts.targets, facts.init_range, facts.learns_positions) == (1.0, 0.02, True)
    assert facts.others == facts.stuck_others == ("rtd",)
    assert facts.planned_tokens == 4000 and facts.passes == 24 / len(run.train.stream.passages)
    assert facts.options == ()  # each document is one paragraph
    advice = [cause.advice for cause in list_causes([replace(facts, options=(("within", "document"),))])]
    assert "sentence_shuffle:within=paragraph, which leaves out the ends of paragraphs" in advice
    detection = read_facts(run, "rtd", ())
    assert detection.generator == pytest.approx(
        run.figures["rtd_generator"]["hidden_loss"] / min(run.chance["rtd_generator"].values())
    )
    assert detection.targets > 4 and detection.replaced == run.figures["rtd"]["positive_rate"]
    assert read_facts(run, "rtd_generator", ()).generator is None


def test_the_message_fits_a_terminal(folder):
    run = at_chance(make_run(make_config(folder, objective="mlm+nsp", init_range="stock", encoder="electra-tiny")))
    lines = describe_stuck(find_stuck(run, ()), 6, 12, 5_000_000).splitlines()
    assert lines[0] == "at chance after 50 % of the steps and 5.0 M tokens:"
    assert max(map(len, lines)) <= 79 and any(line.startswith("  1. weights start at 0.02") for line in lines)
