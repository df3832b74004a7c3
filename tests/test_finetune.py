"""Fine-tuning: where labels stand, what the loss and the figures are, how fast each layer learns, what is saved."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import (
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    BertForTokenClassification,
    ElectraForSequenceClassification,
    get_linear_schedule_with_warmup,
)

from corpora.errors import UserError
from probes.__main__ import main
from probes.finetune.command import parse
from probes.finetune.data import SequenceData, TokenData
from probes.finetune.loading import find_max_length, load_head, load_tokenizer, put_head_on
from probes.finetune.recipe import Recipe, layer_factors, read_recipe, schedule_factor
from probes.finetune.run import finetune
from probes.finetune.sequence_task import SequenceTask, encode_sequences, score_classes, score_numbers
from probes.finetune.sequence_task import find_names as find_classes
from probes.finetune.token_task import (
    TokenTask,
    encode_tokens,
    find_names,
    guess_by_word,
    is_entities,
    score_tags,
    word_prefix,
)
from probes.finetune.train import IGNORED, collate, evaluate, order_rows, train_step

from .small_heads import OTHERS, PEOPLE, PLACES, make_config, make_tokenizer, save_encoder, save_model

RECIPES = Path(__file__).parent.parent / "recipes"


def token_data(sentences):
    words, tags = zip(*[(tuple(words.split()), tuple(tags.split())) for words, tags in sentences], strict=True)
    return TokenData(words=words, tags=tags, places=tuple(f"a.txt:{n}" for n in range(len(words))))


def write_ner(path, count=60, seed=0):
    """Write sentences in which the kind of each name is to be learnt."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(count):
        person, place = rng.choice(PEOPLE), rng.choice(PLACES)
        lines += [f"{person}\tB-PER", "lives\tO", "in\tO", f"{place}\tB-LOC", ".\tO", ""]
    path.write_text("\n".join(lines))
    return str(path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_encoder(tmp_path_factory.mktemp("encoder"))


def test_labels_stand_on_first_pieces_only(folder):
    tokenizer = load_tokenizer(folder)
    data = token_data([("unlikely Kyoto lives", "A B-X O")])
    (row,) = encode_tokens(data, ("O", "A", "B-X"), tokenizer, 32, segments=True).rows
    owners = tokenizer(["unlikely", "Kyoto", "lives"], is_split_into_words=True).word_ids()
    assert len(owners) > 5  # some word has several pieces
    expected, before = [], None
    for owner in owners:
        expected.append({0: 1, 1: 2, 2: 0}[owner] if owner is not None and owner != before else IGNORED)
        before = owner
    assert row.targets == expected and row.words == (0, 1, 2) and row.asked == 3


def test_a_sentence_that_is_too_long_is_cut_between_words_and_loses_none(folder):
    tokenizer = load_tokenizer(folder)
    words = " ".join([*PLACES, *OTHERS] * 3)
    data = token_data([("lives in", "T T"), (words, " ".join(["T"] * len(words.split())))])
    encoded = encode_tokens(data, ("T",), tokenizer, 10, segments=False)
    assert encoded.cut == 1 and encoded.silent == 0
    assert max(len(row.input_ids) for row in encoded.rows) <= 10
    assert [word for row in encoded.rows if row.example == 1 for word in row.words] == list(range(len(words.split())))
    pieces = [piece for row in encoded.rows[1:] for piece in row.input_ids[1:-1]]
    assert pieces == tokenizer(words.split(), is_split_into_words=True)["input_ids"][1:-1]


def test_a_word_longer_than_a_row_keeps_its_label(folder):
    data = token_data([("in " + "unlikely" * 8 + " in", "O T O")])
    encoded = encode_tokens(data, ("O", "T"), load_tokenizer(folder), 8, segments=False)
    assert [row.words for row in encoded.rows] == [(0,), (1,), (2,)]
    assert all(len(row.input_ids) <= 8 for row in encoded.rows)


def test_words_of_which_nothing_is_left_count_as_wrong(folder):
    data = token_data([("in \u200b Oslo", "O B-PER B-LOC")])
    encoded = encode_tokens(data, ("O", "B-PER", "B-LOC"), load_tokenizer(folder), 32, segments=False)
    assert encoded.silent == 1 and encoded.rows[0].words == (0, 2)
    figures = TokenTask(data, ("O", "B-PER", "B-LOC")).score(encoded.rows, [[0, 2]])
    assert figures["entity_precision"] == 1 and figures["entity_recall"] == 0.5


def test_words_are_spaced_where_a_tokenizer_would_glue_them():
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator([], trainers.BpeTrainer(initial_alphabet=alphabet, show_progress=False))
    assert word_prefix(PreTrainedTokenizerFast(tokenizer_object=backend)) == " "
    assert word_prefix(make_tokenizer()) == ""


@pytest.mark.parametrize("kind", ["bert", "roberta", "electra", "modernbert"])
def test_the_loss_is_the_stock_models_own(tmp_path, kind):
    """On padded rows of uneven length, with its labels and reduction, to 1e-6."""
    folder = save_encoder(tmp_path, kind)
    tokenizer = load_tokenizer(folder)
    data = token_data([("Anders lives in Oslo", "P O O L"), ("unlikely", "O"), ("Kyoto river .", "L O O")])
    names = find_names([data])
    assert names == ("L", "O", "P")
    model = put_head_on(folder, TokenTask.auto_class, {"id2label": dict(enumerate(names))}, seed=0).model.eval()
    rows = encode_tokens(data, names, tokenizer, 32, segments=kind in ("bert", "electra")).rows
    inputs, targets = collate(rows, tokenizer.pad_token_id)
    expected = float(model(**inputs, labels=targets).loss.detach())
    loss, figures = evaluate(model, TokenTask(data, names), rows, 2, tokenizer.pad_token_id)
    assert loss == pytest.approx(expected, abs=1e-6)
    summed, asked = train_step(model, TokenTask(data, names), rows, Recipe(), tokenizer.pad_token_id)
    assert asked == 8 and summed / asked == pytest.approx(expected, abs=1e-6)


def test_micro_batches_leave_the_same_gradient(folder):
    tokenizer = load_tokenizer(folder)
    data = token_data([("Anders lives in Oslo", "P O O L"), ("Rome", "L"), ("Kyoto river .", "L O O")])
    names = find_names([data])
    rows = encode_tokens(data, names, tokenizer, 32, segments=True).rows
    gradients = []
    for size in (0, 1, 2):
        model = put_head_on(folder, TokenTask.auto_class, {"id2label": dict(enumerate(names))}, seed=0).model
        recipe = Recipe(micro_batch_size=size, max_grad_norm=0)
        train_step(model, TokenTask(data, names), rows, recipe, tokenizer.pad_token_id)
        gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
    assert float(gradients[0].norm()) > 0.1
    for other in gradients[1:]:
        assert torch.allclose(gradients[0], other, atol=1e-6)


def test_entity_f1_counts_whole_spans():
    """Of three entities one is found whole, one with a wrong end, one not; one is invented: 1 of 3 and 1 of 3."""
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-ORG", "I-ORG"]]
    found = [["B-PER", "I-PER", "O", "O"], ["B-LOC", "B-ORG", "O"]]
    figures = score_tags(truth, found, "entity_f1", True)
    assert next(iter(figures)) == "entity_f1"
    assert figures["entity_f1"] == pytest.approx(1 / 3) and figures["f1_PER"] == 1 and figures["f1_ORG"] == 0
    assert figures["accuracy"] == pytest.approx(4 / 7)
    nothing = score_tags([["O"]], [["O"]], "entity_f1", True)
    assert nothing["entity_f1"] == 0 and nothing["accuracy"] == 1


def test_other_tags_are_scored_over_words():
    """F1 by class: N 2/3, V 4/5, X 0; their mean 22/45."""
    figures = score_tags([["N", "V", "V", "X"]], [["N", "V", "V", "N"]], "accuracy", False)
    assert figures["accuracy"] == 0.75
    assert figures["macro_f1"] == pytest.approx((2 / 3 + 1 + 0) / 3)
    assert not is_entities(["NOUN", "VERB"]) and not is_entities(["O", "X"]) and is_entities(["O", "B-X"])


def test_labels_are_ordered_by_type_with_o_first():
    assert find_names([token_data([("a b c d", "I-PER B-LOC O B-PER")])]) == ("O", "B-LOC", "B-PER", "I-PER")
    train, dev = token_data([("a", "N")]), token_data([("b", "V")])
    with pytest.raises(UserError, match=r"a.txt:0: .*'b' has the label 'V', which the head does not know; it knows N "):
        find_names([train, dev])
    assert find_names([train, dev], ("V", "N")) == ("V", "N")


def test_the_guess_without_an_encoder_knows_words():
    train = token_data([("run run run walk", "V V N V")])
    assert guess_by_word(train, token_data([("run away", "N N")])) == [["V", "V"]]


# The rates of layers


@pytest.mark.parametrize(("electra_rates", "top", "bottom", "table"), [(False, 1, 3, 4), (True, 2, 4, 5)])
def test_each_layer_learns_as_electras_paper_or_code_has_it(electra_rates, top, bottom, table):
    """Three layers. In their code the head has depth n + 2, layer i i + 1, embeddings 0; factor .8^(n + 2 - depth)."""
    model = ElectraForSequenceClassification(make_config("electra", num_hidden_layers=3))
    factors = layer_factors(model, 0.8, electra_rates=electra_rates)
    assert factors["classifier.dense.weight"] == factors["classifier.out_proj.bias"] == 1
    assert factors["electra.encoder.layer.2.output.dense.weight"] == pytest.approx(0.8**top)
    assert factors["electra.encoder.layer.0.attention.self.query.bias"] == pytest.approx(0.8**bottom)
    assert factors["electra.embeddings.word_embeddings.weight"] == pytest.approx(0.8**table)
    assert factors["electra.embeddings_project.weight"] == pytest.approx(0.8**table)
    if electra_rates:
        depths = {"electra.encoder.layer.2.output.dense.weight": 3, "electra.embeddings_project.weight": 0}
        assert all(factors[name] == pytest.approx(0.8 ** (3 + 2 - depth)) for name, depth in depths.items())


@pytest.mark.parametrize(("kind", "expected"), [
    ("bert", {"bert.pooler.dense.weight": 1, "bert.encoder.layer.1.output.dense.bias": 0.5, "classifier.weight": 1}),
    ("roberta", {"roberta.encoder.layer.0.output.dense.bias": 0.25, "roberta.embeddings.LayerNorm.bias": 0.125}),
    ("modernbert", {"model.final_norm.weight": 0.5, "model.layers.1.mlp.Wi.weight": 0.5, "head.dense.weight": 1}),
])  # fmt: skip
def test_every_parameter_of_the_usual_encoders_has_its_factor(tmp_path, kind, expected):
    folder = save_encoder(tmp_path, kind)
    model = put_head_on(folder, SequenceTask.auto_class, {}, seed=0).model
    factors = layer_factors(model, 0.5)
    assert set(factors) == {name for name, _ in model.named_parameters()}
    assert {name: factors[name] for name in expected} == expected
    assert set(layer_factors(model, 1.0).values()) == {1.0}


def test_the_schedule_is_the_usual_one_or_electras():
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    usual = get_linear_schedule_with_warmup(optimizer, 4, 20)
    for step in range(20):
        assert schedule_factor(step, 20, 0.2) == pytest.approx(usual.get_last_lr()[0])
        expected = min(1, step / 4) * (1 - step / 20)
        assert schedule_factor(step, 20, 0.2, electra_rates=True) == pytest.approx(expected)
        optimizer.step()
        usual.step()
    assert max(schedule_factor(step, 20, 0.2, electra_rates=True) for step in range(20)) == 0.8
    assert schedule_factor(0, 20, 0.0) == 1


def test_the_published_recipe_is_in_its_file():
    settings = read_recipe(str(RECIPES / "panx_it_xlmr.yaml"))
    recipe = Recipe(**settings)
    assert recipe.learning_rate == 5e-5 and recipe.adam_epsilon == 1e-8 and recipe.seed == 42
    assert (recipe.adam_beta1, recipe.adam_beta2, recipe.warmup_rate, recipe.epochs) == (0.9, 0.999, 0, 3)
    assert math.ceil(int(recipe.subsample_rate * 20_000) / recipe.batch_size) == 70
    for name in ("panx_it_xlmr", "token_tiny", "electra_small_glue"):
        Recipe(**read_recipe(str(RECIPES / f"{name}.yaml")))


def test_a_published_recipe_runs_on_another_encoder_and_files(tmp_path, folder, capsys):
    path = write_ner(tmp_path / "a.tsv", 30)
    recipe = ["--recipe", str(RECIPES / "panx_it_xlmr.yaml"), "--subsample_rate", "0.5", "--threads", "1"]
    assert main(["finetune", folder, *recipe, "--train", path, "--dev", path, "--test", ""]) == 0
    printed = capsys.readouterr().out
    assert "train: 15 of 30 sentences, 75 words" in printed and "reference: with xlm-roberta-base" in printed


def test_batches_of_like_length_hold_every_row_once():
    lengths = list(np.random.default_rng(0).integers(3, 60, 1000))
    plain, sorted_ = (list(order_rows(lengths, 10, 1, Recipe(by_length=by_length))) for by_length in (False, True))
    for batches in (plain, sorted_):
        assert sorted(np.concatenate(batches).tolist()) == list(range(1000))
    waste = [sum(max(lengths[n] for n in batch) * len(batch) for batch in batches) for batches in (plain, sorted_)]
    assert waste[1] < 0.65 * waste[0]
    again = list(order_rows(lengths, 10, 1, Recipe()))
    assert all(np.array_equal(one, other) for one, other in zip(plain, again, strict=True))
    assert not np.array_equal(plain[0], list(order_rows(lengths, 10, 2, Recipe()))[0])


# Models


def test_a_new_head_starts_alike_whatever_head_the_folder_has(tmp_path, folder):
    body = load_head(folder, "AutoModel")[0]
    with_head = BertForTokenClassification(make_config("bert", num_labels=3))
    with_head.bert.load_state_dict(body.state_dict(), strict=False)
    other = save_model(tmp_path, with_head)
    settings = {"id2label": {0: "a", 1: "b", 2: "c"}}
    one, two = (put_head_on(name, TokenTask.auto_class, settings, seed=5) for name in (folder, other))
    assert one.new == ("classifier.bias", "classifier.weight") and one.missing == ()
    for key, value in one.model.state_dict().items():
        assert torch.equal(value, two.model.state_dict()[key]), key
    assert torch.equal(one.model.bert.encoder.layer[0].output.dense.weight, body.encoder.layer[0].output.dense.weight)
    kept = put_head_on(other, TokenTask.auto_class, {}, seed=5, keep=True).model
    assert torch.equal(kept.classifier.weight, with_head.classifier.weight)
    control = put_head_on(folder, TokenTask.auto_class, settings, seed=5, untrained=True).model
    assert torch.equal(control.classifier.weight, one.model.classifier.weight)
    assert not torch.equal(
        control.bert.embeddings.word_embeddings.weight, one.model.bert.embeddings.word_embeddings.weight
    )


def test_robertas_positions_start_after_its_padding(tmp_path):
    folder = save_encoder(tmp_path, "roberta", positions=20)
    model, tokenizer = put_head_on(folder, TokenTask.auto_class, {}, seed=0).model, load_tokenizer(folder)
    length = find_max_length(model.config, tokenizer)
    assert length == 20
    model(input_ids=torch.full((1, length), 7))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 7))


def test_a_token_task_learns_is_saved_whole_and_scores_the_same_again(tmp_path, folder, capsys):
    train_file, dev_file = write_ner(tmp_path / "train.tsv"), write_ner(tmp_path / "dev.tsv", 20, seed=1)
    out = tmp_path / "tuned"
    options = ["--train", train_file, "--dev", dev_file, "--test", dev_file, "--batch_size", "10", "--eval_every", "4"]
    recipe = parse([folder, *options, "--learning_rate", "0.01", "--epochs", "5", "--out", str(out), "--threads", "1"])
    results = finetune(recipe)
    assert [line["step"] for line in results["evaluations"]] == [4, 6, 8, 12, 16, 18, 20, 24, 28, 30]
    assert results["evaluations"][1]["epoch"] == 1 and results["labels"] == ["O", "B-LOC", "B-PER"]
    last = results["evaluations"][-1]
    assert last["figures"]["entity_f1"] == 1 and last["loss"] < 0.2
    assert results["test"]["figures"] == last["figures"] and results["baseline"]["figures"]["entity_f1"] == 1
    model, report = AutoModelForTokenClassification.from_pretrained(out, output_loading_info=True)
    assert type(model) is BertForTokenClassification and not any(report.values())
    assert model.config.id2label == {0: "O", 1: "B-LOC", 2: "B-PER"} and model.config.label2id["B-PER"] == 2
    assert json.loads((out / "results.json").read_text())["evaluations"] == results["evaluations"]
    card = (out / "README.md").read_text()
    assert "| Training Loss | Epoch | Step | Validation Loss | Entity F1 |" in card and str(tmp_path) not in card
    assert (out / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
    again = finetune(parse([str(out), "--dev", dev_file, "--epochs", "0", "--threads", "1"]))
    assert again["head"] == "the folder's"
    assert again["evaluations"][0]["loss"] == pytest.approx(last["loss"], abs=1e-6)
    assert "  Training Loss   Epoch    Step  Validation Loss        Entity F1" in capsys.readouterr().out
    with pytest.raises(UserError, match="is there already"):
        finetune(recipe)


def test_the_same_seed_gives_the_same_run(tmp_path, folder):
    train_file = write_ner(tmp_path / "train.tsv", 20)
    runs = []
    for seed in (1, 1, 2):
        torch.rand(seed)  # what was drawn before must not matter
        runs.append(finetune(Recipe(encoder=folder, train=train_file, dev=train_file, epochs=1, seed=seed, threads=1)))
    losses = [run["evaluations"][-1]["loss"] for run in runs]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize(("kind", "has_types"), [("bert", True), ("roberta", False)])
def test_pairs_have_token_types_where_the_model_has_them(tmp_path, kind, has_types):
    folder = save_encoder(tmp_path, kind, positions=12)
    data = SequenceData(
        first=("Anders lives", "in " * 20), second=("in Oslo", "the " * 4), labels=("x", "y"), places=("a:1", "a:2")
    )
    encoded = encode_sequences(data, ("x", "y"), load_tokenizer(folder), 12, segments=has_types)
    assert encoded.truncated == 1 and [len(row.input_ids) <= 12 for row in encoded.rows] == [True, True]
    inputs, targets = collate(encoded.rows, 0)
    assert ("token_type_ids" in inputs) is has_types and targets.tolist() == [0, 1]
    if has_types:
        row = encoded.rows[0]
        first = row.input_ids.index(3)  # [SEP]
        assert row.token_types == [0] * (first + 1) + [1] * (len(row.input_ids) - first - 1)
    model = put_head_on(folder, SequenceTask.auto_class, {"id2label": {0: "x", 1: "y"}}, seed=0).model.eval()
    task = SequenceTask(("x", "y"), "accuracy")
    loss, _ = evaluate(model, task, encoded.rows, 2, 0)
    assert loss == pytest.approx(float(model(**inputs, labels=targets.long()).loss.detach()), abs=1e-6)


def test_texts_are_padded_to_the_longest_of_their_batch_and_masked(folder):
    tokenizer = load_tokenizer(folder)
    data = SequenceData(first=("in", "in the river"), second=(), labels=("0", "1"), places=("a:1", "a:2"))
    rows = encode_sequences(data, ("0", "1"), tokenizer, 32, segments=True).rows
    inputs, _ = collate(rows, tokenizer.pad_token_id)
    assert inputs["input_ids"].shape == (2, max(len(row.input_ids) for row in rows))
    assert inputs["attention_mask"].sum(1).tolist() == [len(row.input_ids) for row in rows]


def test_figures_of_classes_and_numbers_are_those_of_the_definitions():
    """tp 2, fn 1, fp 1, tn 2: MCC = (2 * 2 - 1 * 1) / 9."""
    figures = score_classes(np.array([1, 1, 1, 0, 0, 0]), np.array([1, 1, 0, 1, 0, 0]), "mcc")
    assert figures["mcc"] == pytest.approx(3 / 9) and figures["f1"] == pytest.approx(2 / 3)
    assert figures["accuracy"] == pytest.approx(4 / 6) and next(iter(figures)) == "mcc"
    ranks = score_numbers(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 40]), "spearman")
    assert ranks["spearman"] == pytest.approx(1 - 6 * 2 / (4 * 15))
    assert score_numbers(np.array([1.0, 2]), np.array([3.0, 3]), "spearman") == {"spearman": 0, "pearson": 0}


def test_labels_with_fractions_are_numbers_and_others_classes():
    def data(*labels):
        return SequenceData(first=("a",) * len(labels), second=(), labels=labels, places=("f:2",) * len(labels))

    assert find_classes([data("0.5", "3.0")]) == ()
    assert find_classes([data("10", "9", "10")]) == ("9", "10")
    assert find_classes([data("no", "yes")]) == ("no", "yes")
    assert find_classes([data("1", "2")], (), "spearman") == ()
    with pytest.raises(UserError, match="f:2: the label 'maybe' is none that the head knows; it knows no, yes"):
        find_classes([data("no", "yes"), data("maybe")])
    with pytest.raises(UserError, match="every text has the label 'x'"):
        find_classes([data("x", "x")])


@pytest.mark.parametrize(("labels", "metric", "classes"), [(("in", "out"), "mcc", 2), (("0.5", "2.5"), "spearman", 1)])
def test_a_sequence_task_learns_and_is_saved(tmp_path, folder, labels, metric, classes):
    path = tmp_path / "a.tsv"
    verbs = ("lives in", "saw the river")
    rows = [f"{word} {verbs[n % 2]} {place}\t{labels[n % 2]}" for n, word in enumerate(PEOPLE) for place in PLACES]
    path.write_text("sentence\tlabel\n" + "\n".join(rows) + "\n")
    settings = {"encoder": folder, "task": "sequence", "train": str(path), "dev": str(path), "threads": 1}
    out = tmp_path / "tuned"
    schedule = {"epochs": 10, "batch_size": 12, "learning_rate": 0.005, "warmup_rate": 0.1, "out": str(out)}
    results = finetune(Recipe(**settings, **schedule, metric="mcc" if metric == "mcc" else "auto", layer_decay=0.9))
    assert results["metric"] == metric and results["evaluations"][-1]["figures"][metric] > 0.6
    assert results["baseline"]["figures"][metric] == 0
    model, report = AutoModelForSequenceClassification.from_pretrained(out, output_loading_info=True)
    assert model.config.num_labels == classes and not any(report.values())


# The command


def bad_folder(tmp_path, folder, what):
    if what == "no weights":
        (tmp_path / "config.json").write_text((Path(folder) / "config.json").read_text())
        return str(tmp_path)
    if what == "no folder":
        return str(tmp_path / "nothing")
    if what == "pickle":
        (tmp_path / "config.json").write_text((Path(folder) / "config.json").read_text())
        (tmp_path / "pytorch_model.bin").write_bytes(b"x")
        for name in ("tokenizer.json", "tokenizer_config.json"):
            (tmp_path / name).write_text((Path(folder) / name).read_text())
        return str(tmp_path)
    return folder


@pytest.mark.parametrize(
    ("what", "options", "said"),
    [
        ("no folder", [], "there is no folder"),
        ("no weights", [], "has no weights"),
        ("pickle", [], "only pytorch_model.bin, which can run code"),
        ("", ["--learning-rate", "1"], "option --learning-rate is unknown; did you mean --learning_rate?"),
        ("", ["--epochs", "1.5"], "--epochs is '1.5'; it must be a whole number"),
        ("", ["--metric", "f2"], "--metric is 'f2'; known: auto, entity_f1"),
        ("", ["--metric", "mcc"], "--metric mcc is not one of these labels'"),
        ("", ["--max_length", "40"], "--max_length 40 is longer than the 32 positions"),
        ("", ["--labels", "O,B-PER"], "has the label 'B-LOC', which the head does not know"),
        ("", ["--subsample_rate", "0.0001"], "leaves nothing of the 3"),
        ("", ["--epochs", "0"], "scores a head that was trained"),
        ("", ["--head", "keep"], "has no TokenClassification head"),
        ("", ["--train", "./no.tsv"], "there is no file './no.tsv'"),
    ],
)
def test_what_cannot_be_used_is_one_line(tmp_path, folder, capsys, what, options, said):
    (tmp_path / "data").mkdir()
    path = write_ner(tmp_path / "data" / "a.tsv", 3)
    encoder = bad_folder(tmp_path, folder, what)
    assert main(["finetune", encoder, "--train", path, "--dev", path, "--threads", "1", *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and said in error


def test_help_teaches_and_fits_80_columns(capsys):
    with pytest.raises(SystemExit):
        main(["finetune", "--help"])
    text = capsys.readouterr().out
    assert "recipes/panx_it_xlmr.yaml" in text and "--layer_decay" in text
    assert max(map(len, text.splitlines())) <= 80


def test_options_win_over_the_recipe_and_a_bad_one_is_named(tmp_path):
    path = tmp_path / "r.yaml"
    path.write_text("learning_rate: 5e-5\nepochs: 7\ntrain: a\ndev: b\nlabels: [O, B-X]\n")
    recipe = parse(["folder", "--recipe", str(path), "--epochs", "2", "--untrained"])
    assert (recipe.learning_rate, recipe.epochs, recipe.untrained, recipe.labels) == (5e-5, 2, True, "O,B-X")
    path.write_text("learning_rat: 1\n")
    with pytest.raises(UserError, match="learning_rat is unknown"):
        parse(["folder", "--recipe", str(path)])
    path.write_text("epochs: [\n")
    with pytest.raises(UserError, match="r.yaml, line 2: not YAML"):
        parse(["folder", "--recipe", str(path)])
