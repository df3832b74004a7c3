"""What a head says of a text: every loss the model's own, and what is untrained or unnamed said first."""

import base64
import hashlib
import math
import re
from html.parser import HTMLParser

import pytest
import torch
from rich.console import Console
from transformers import (
    BertForMaskedLM,
    BertForNextSentencePrediction,
    BertForSequenceClassification,
    BertForTokenClassification,
    ElectraForPreTraining,
)

from corpora.errors import UserError
from probes.__main__ import main
from probes.explain import render
from probes.explain_heads import find_folders, find_foreign, open_head
from probes.explain_html import show, write_page
from probes.explain_tables import explain, explain_head

from .small_heads import make_config, make_tokenizer, save_encoder, save_model

NAMES = {"id2label": {0: "O", 1: "B-PER", 2: "B-LOC"}, "label2id": {"O": 0, "B-PER": 1, "B-LOC": 2}}
TEXT, LABELS = "Anders lives in unlikely Kyoto .", ["B-PER", "O", "O", "O", "B-LOC", "O"]
NASTY = '<script>alert(1)</script> "><img src=x onerror=alert(1)> \u202eevil\u202c {{7*7}} \x1b[31m'


def save(folder, model_class, kind="bert", **settings):
    torch.manual_seed(1)
    return save_model(folder, model_class(make_config(kind, **settings)))


@pytest.fixture(scope="module")
def tagger(tmp_path_factory):
    return save(tmp_path_factory.mktemp("tagger"), BertForTokenClassification, **NAMES)


def test_the_mean_loss_of_a_token_head_is_the_models_own(tagger):
    explanation = explain_head(tagger, TEXT, labels=LABELS)
    encoded = make_tokenizer()(TEXT.split(), is_split_into_words=True, return_tensors="pt")
    labels, before = [], None
    for owner in encoded.word_ids():
        labels.append(NAMES["label2id"][LABELS[owner]] if owner is not None and owner != before else -100)
        before = owner
    model = BertForTokenClassification.from_pretrained(tagger).eval()
    own = float(model(**encoded, labels=torch.tensor([labels])).loss.detach())
    assert explanation.mean_loss == pytest.approx(own, abs=1e-6)
    assert explanation.classes == ("0 = O", "1 = B-PER", "2 = B-LOC") and explanation.warnings == ()
    roles = [line.cells[1] for line in explanation.lines]
    assert roles[0] == roles[-1] == "special token" and roles.count("") == len(LABELS)
    assert roles.count("continues") == len(labels) - len(LABELS) - 2 > 0
    for line in explanation.lines:
        assert (line.cells[2] == "-") == (line.cells[1] != "") == (line.strength is None)


def test_probabilities_are_the_models(tagger):
    explanation = explain_head(tagger, "Oslo")
    model, tokenizer = BertForTokenClassification.from_pretrained(tagger).eval(), make_tokenizer()
    with torch.no_grad():
        likely = model(**tokenizer("Oslo", return_tensors="pt")).logits.softmax(-1)[0, 1]
    assert explanation.columns == ("Token", "", "Label", "Prob.")
    assert explanation.lines[1].cells[2:] == (model.config.id2label[int(likely.argmax())], f"{float(likely.max()):.3f}")


@pytest.mark.parametrize(
    ("labels", "said"), [(["O"], "1 labels for 6 words"), ([*LABELS[:5], "B-ORG"], "'B-ORG' is none of the head's")]
)
def test_labels_that_do_not_fit_are_refused(tagger, labels, said):
    with pytest.raises(UserError, match=said):
        explain_head(tagger, TEXT, labels=labels)


def test_a_detectors_mean_loss_is_electras_own_over_every_token(tmp_path):
    folder = save(tmp_path, ElectraForPreTraining, "electra")
    words = TEXT.split()
    explanation = explain_head(folder, TEXT, labels=["original", "replaced", *["original"] * 4])
    encoded = make_tokenizer()(words, is_split_into_words=True, return_tensors="pt")
    labels = torch.tensor([[int(owner == 1) for owner in encoded.word_ids()]])
    model = ElectraForPreTraining.from_pretrained(folder).eval()
    output = model(**encoded, labels=labels)
    assert explanation.mean_loss == pytest.approx(float(output.loss.detach()), abs=1e-6)
    assert explanation.classes == ("0 = original", "1 = replaced")
    assert [line.strength for line in explanation.lines] == pytest.approx(output.logits.detach().sigmoid()[0].tolist())


def test_hidden_tokens_are_asked_one_by_one(tmp_path):
    folder = save(tmp_path, BertForMaskedLM)
    explanation = explain_head(folder, "Anders walked to Rome", top=2)
    tokenizer = make_tokenizer()
    model, encoded = BertForMaskedLM.from_pretrained(folder).eval(), tokenizer("Anders walked to Rome")
    ids = torch.tensor([encoded["input_ids"]])
    losses = []
    for place in range(1, ids.shape[1] - 1):
        hidden, labels = ids.clone(), torch.full_like(ids, -100)
        hidden[0, place], labels[0, place] = tokenizer.mask_token_id, ids[0, place]
        losses.append(float(model(input_ids=hidden, labels=labels).loss.detach()))
    assert explanation.mean_loss == pytest.approx(sum(losses) / len(losses), abs=1e-6)
    assert [line.cells[3] for line in explanation.lines[1:-1]] == [f"{loss:.3f}" for loss in losses]
    shown = [line.cells[:2] for line in explain_head(folder, "Kyotoan lives").lines]
    pieces = tokenizer.tokenize("Kyotoan")
    assert len(pieces) > 1 and shown[0] == ("[CLS]", "special token") and shown[-1] == ("[SEP]", "special token")
    assert shown[1:-1] == [(pieces[0], ""), *((piece, "continues") for piece in pieces[1:]), ("lives", "")]
    blank = explain_head(folder, "Anders walked to [MASK]")
    assert blank.mean_loss is None and [line.cells[1] for line in blank.lines].count("hidden") == 1


def test_a_next_sentence_head_says_what_its_classes_are(tmp_path):
    folder = save(tmp_path, BertForNextSentencePrediction)
    explanation = explain_head(folder, "Maria walked.", second="the river", labels=["random"])
    assert explanation.classes == ("0 = follows", "1 = random")
    encoded = make_tokenizer()("Maria walked.", "the river", return_tensors="pt")
    model = BertForNextSentencePrediction.from_pretrained(folder).eval()
    own = float(model(**encoded, labels=torch.tensor([1])).loss.detach())
    assert explanation.mean_loss == pytest.approx(own, abs=1e-6)
    with pytest.raises(UserError, match="give the other one with --second"):
        explain_head(folder, "Maria walked.")


def test_a_sequence_head_gives_every_label_its_probability(tmp_path):
    folder = save(
        tmp_path, BertForSequenceClassification, id2label={0: "bad", 1: "good"}, label2id={"bad": 0, "good": 1}
    )
    explanation = explain_head(folder, "the river", labels=["good"])
    model = BertForSequenceClassification.from_pretrained(folder).eval()
    logits = model(**make_tokenizer()("the river", return_tensors="pt")).logits[0].detach()
    assert [line.cells[:3] for line in explanation.lines] == [
        (str(n), name, f"{float(p):.4f}")
        for n, (name, p) in enumerate(zip(("bad", "good"), logits.softmax(-1), strict=True))
    ]
    assert explanation.mean_loss == pytest.approx(-float(logits.log_softmax(-1)[1]), abs=1e-6)


def test_an_untrained_head_is_named_before_any_figure(tmp_path, capsys):
    folder = save_encoder(tmp_path)
    assert main(["explain", folder, "Anders lives", "--head", "token"]) == 0
    printed = capsys.readouterr().out
    assert printed.index("NOT TRAINED: 2 tensors") < printed.index("Prob.")
    assert "classifier.bias" in printed and "do not say" not in printed
    assert explain_head(folder, "Anders", kind="token").lines == explain_head(folder, "Anders", kind="token").lines


def test_classes_without_names_are_warned_of_with_a_way_to_check(tmp_path):
    folder = save(tmp_path, BertForTokenClassification, num_labels=3)
    (warning,) = explain_head(folder, "Anders").warnings
    assert "does not say what 0 means" in warning and "--labels" in warning and f"{math.log(3):.2f}" in warning


def test_a_run_is_asked_through_its_heads(tmp_path, capsys):
    save_encoder(tmp_path)
    with pytest.raises(UserError, match="is a bare encoder"):
        find_folders(str(tmp_path))
    save(tmp_path / "heads" / "mlm", BertForMaskedLM)
    save(tmp_path / "heads" / "nsp", BertForNextSentencePrediction)
    assert [folder.rpartition("/")[2] for folder in find_folders(str(tmp_path))] == ["mlm", "nsp"]
    (tmp_path / "heads" / "sbo").mkdir()
    (tmp_path / "heads" / "sbo" / "head.json").write_text("{}")
    assert find_foreign(str(tmp_path)) == ["sbo"]
    assert main(["explain", str(tmp_path), "Anders lives"]) == 2  # NSP wants a second text, and the rest is shown
    printed = capsys.readouterr()
    assert "BertForMaskedLM" in printed.out and "nsp was not asked" in printed.err
    assert main(["explain", str(tmp_path), "Anders lives", "--second", "in Rome"]) == 0


def test_a_text_that_is_too_long_is_cut_and_said_so(tagger):
    explanation = explain_head(tagger, "in " * 40, labels=["O"] * 40)
    assert "its last 10 words were left out" in explanation.warnings[0]  # 32 positions, two of them special
    assert explanation.summary[-1].startswith("Mean loss over 30 labelled tokens")


class Tags(HTMLParser):
    """Collects what a page is made of."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes = set(), set()

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


def test_a_page_shows_every_text_literally_and_lets_nothing_run(tagger, tmp_path):
    head = open_head(tagger)
    page = write_page([explain(head, NASTY)], NASTY, second="</style>")
    parser = Tags()
    parser.feed(page)
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "section", "p", "span", "bdi", "div"}
    assert parser.tags <= allowed | {"table", "thead", "tbody", "tr", "th", "td"}
    assert parser.attributes == {"lang", "charset", "http-equiv", "content", "name", "class"}
    assert "&lt;script&gt;" in page and "\u202e" not in page and "\\u202e" in page and "\x1b" not in page
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert f"default-src 'none'; style-src 'sha256-{digest}'" in page


def test_the_terminal_is_80_columns_wide_and_gets_no_control_characters(tagger):
    console = Console(width=80, record=True, highlight=False)
    with console.capture() as capture:
        render(explain_head(tagger, NASTY), console)
    printed = capture.get()
    assert max(map(len, printed.splitlines())) <= 80
    assert show("\x1b[31m\u202e\x00") == "\\x1b[31m\\u202e\\x00"
    assert not {"\u202e", "\x1b", "\x00"} & set(printed)


def test_the_command_writes_a_page_and_refuses_in_one_line(tagger, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert main(["explain", tagger, TEXT, "--labels", " ".join(LABELS), "--html", str(page)]) == 0
    assert "Mean loss over 6 labelled tokens" in capsys.readouterr().out and page.read_text().startswith("<!DOCTYPE")
    for argv, said in [
        ([str(tmp_path / "none"), "x"], "there is no folder"),
        ([tagger, "  "], "the text is empty"),
        ([tagger], "the following arguments are required: TEXT"),
        ([tagger, "x", "--top", "0"], "--top is 0"),
    ]:
        assert main(["explain", *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and said in error
