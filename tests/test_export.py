import json
import os
import stat
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers import AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase, pipeline

from corpora import Vocabulary
from corpora.tokenizer import train_tokenizer
from generators.masked_lm import MaskedLM
from generators.network import encode, reads_segments
from generators.uniform import Uniform
from objectives import build_objectives
from objectives.batch import View
from objectives.heads import SequenceHead
from training import export
from training.encoders import SIZES, EncoderSpec, build_encoder
from training.export import EXPORT_RECORD, export_run, publish_files
from training.folders import verify_folder
from training.model import PretrainingModel
from training.stock import find_stock_head

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and a small cat, which was asleep, runs away from both of them."
] * 20
ENCODERS = ("bert-tiny", "electra-tiny", "roberta-tiny", "modernbert-tiny", "deberta-v2-tiny", "tiny")
STOCK_CLASSES = {  # objective -> architecture -> class
    "mlm": {
        "bert": "BertForMaskedLM",
        "electra": "ElectraForMaskedLM",
        "roberta": "RobertaForMaskedLM",
        "modernbert": "ModernBertForMaskedLM",
        "deberta-v2": "DebertaV2ForMaskedLM",
    },
    "rtd": {
        "bert": "ElectraForPreTraining",
        "electra": "ElectraForPreTraining",
        "roberta": None,
        "modernbert": "ModernBertForTokenClassification",
        "deberta-v2": None,
    },
    "nsp": {
        "bert": "BertForNextSentencePrediction",
        "electra": "ElectraForSequenceClassification",
        "roberta": "RobertaForSequenceClassification",
        "modernbert": "ModernBertForSequenceClassification",
        "deberta-v2": "DebertaV2ForSequenceClassification",
    },
    "sentence_shuffle": {
        "bert": "BertForSequenceClassification",
        "electra": "ElectraForSequenceClassification",
        "roberta": "RobertaForSequenceClassification",
        "modernbert": "ModernBertForSequenceClassification",
        "deberta-v2": "DebertaV2ForSequenceClassification",
    },
}


@dataclass(frozen=True, kw_only=True)
class Exported:
    """A model, where it was exported to, and what the export's record says of each folder."""

    model: PretrainingModel
    folder: Path
    contents: dict[str, Any]

    @property
    def architecture(self) -> str:
        return self.model.encoder.config.model_type


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerBase:
    return train_tokenizer(iter(TEXTS), vocab_size=200)


@pytest.fixture(scope="module", params=ENCODERS)
def exported(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase, tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Every architecture with every kind of head, and a generator that shares its table the most entangled way."""
    model = make_model(request.param, "mlm+rtd+nsp", tokenizer, "gdes")
    folder = tmp_path_factory.mktemp("exported")
    return Exported(model=model, folder=folder, contents=export_to(folder, model, tokenizer))


def make_model(
    encoder: str,
    objective: str,
    tokenizer: PreTrainedTokenizerBase,
    sharing: str = "hard",
    *,
    learned: bool = True,
    size: tuple[int, int, int] = (2, 32, 2),
) -> PretrainingModel:
    """Build a model whose every parameter, norms and biases included, is away from where it would start."""
    vocabulary = Vocabulary.of(tokenizer)
    torch.manual_seed(1)
    spec = EncoderSpec(name=encoder, vocabulary=vocabulary, max_length=32, dropout=0.1, attention="eager")
    generator = MaskedLM(width_rate=0.5, sharing=sharing) if learned else Uniform()
    counts = vocabulary.ordinary_ids.repeat(3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "tiny", size)
        network = build_encoder(spec)
    tables = SimpleNamespace(vocabulary=vocabulary, unigram_counts=counts)
    model = PretrainingModel(network, build_objectives(objective), generator, tables, "eager")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    return model.eval()


def export_to(folder: Path, model: PretrainingModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    objectives = tuple(model.objectives.values())
    export_run(folder, model, tokenizer, objectives, vocabulary=Vocabulary.of(tokenizer))
    return json.loads((folder / EXPORT_RECORD).read_text())["folders"]


def hidden_states(model: PretrainingModel, tokenizer: PreTrainedTokenizerBase) -> torch.Tensor:
    inputs = tokenizer("The lazy dog runs", "and a small cat", return_tensors="pt")
    view = View(inputs["input_ids"], inputs["attention_mask"], inputs["token_type_ids"])
    with torch.no_grad():
        return encode(model.encoder, view)


def load(folder: Path, auto_class: str = "AutoModel") -> PreTrainedModel:
    """Load without a missing or unexpected key, with the attention that our models use here."""
    loader = getattr(transformers, auto_class)
    loaded, report = loader.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    assert not any(report.values())
    return loaded.eval()


def test_the_encoder_loads_whole_and_gives_the_same_hidden_states(exported, tokenizer):
    loaded = load(exported.folder)
    again = AutoTokenizer.from_pretrained(exported.folder)
    inputs = again("The lazy dog runs", "and a small cat", return_tensors="pt")
    assert loaded.config.architectures == [type(exported.model.encoder).__name__] == [type(loaded).__name__]
    assert loaded.dtype == torch.float32
    assert ("token_type_ids" in inputs) == reads_segments(exported.model.encoder)
    with torch.no_grad():
        ours, theirs = hidden_states(exported.model, tokenizer), loaded(**inputs).last_hidden_state
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=0)


def test_the_tokenizer_cuts_at_the_length_that_the_encoder_can_read(exported):
    again = AutoTokenizer.from_pretrained(exported.folder)
    assert again(["a dog"], ["runs " * 100], truncation=True, return_tensors="pt")["input_ids"].shape == (1, 32)


@pytest.mark.parametrize("objective", ["mlm", "rtd", "nsp"])
def test_each_head_becomes_the_class_that_transformers_has_for_it(objective, exported, tokenizer):
    expected = STOCK_CLASSES[objective][exported.architecture]
    folder = exported.folder / "heads" / objective
    entry = exported.contents[f"heads/{objective}"]
    verify_folder(folder)
    assert entry["class"] == expected
    assert json.loads((folder / "head.json").read_text()) == entry
    if expected is None:
        assert {path.name for path in folder.iterdir()} == {"head.json", "head.safetensors", "MANIFEST.json"}
        return
    loaded = load(folder, entry["load_with"])
    assert type(loaded).__name__ == expected
    if objective != "mlm":
        labels = next(iter(entry["labels"].values()))
        assert loaded.config.id2label == dict(enumerate(labels))
        assert loaded.config.label2id == {label: number for number, label in enumerate(labels)}
    assert len(AutoTokenizer.from_pretrained(folder)) == len(tokenizer)


@pytest.mark.parametrize("objective", ["mlm", "rtd", "nsp"])
def test_each_exported_head_gives_our_logits(objective, exported, tokenizer):
    entry = exported.contents[f"heads/{objective}"]
    if entry["class"] is None:
        return
    folder = exported.folder / "heads" / objective
    inputs = AutoTokenizer.from_pretrained(folder)("The lazy dog runs", "and a small cat", return_tensors="pt")
    hidden, head = hidden_states(exported.model, tokenizer)[0], exported.model.heads[objective]
    with torch.no_grad():
        theirs = load(folder, entry["load_with"])(**inputs).logits[0]
        if objective == "mlm":
            ours = head.logits(hidden, exported.model.encoder.get_input_embeddings().weight)
        elif objective == "nsp":
            ours = head.classifier(head.transform(hidden[0]))
        else:
            ours = head.classifier(head.transform(hidden)).squeeze(-1)
            theirs = theirs[:, 1] - theirs[:, 0] if theirs.dim() == 2 else theirs
    torch.testing.assert_close(theirs, ours, atol=1e-5, rtol=1e-5)


def test_the_generator_is_a_masked_lm_with_its_effective_word_table(exported):
    proposer = exported.model.generators["rtd"]
    assert exported.contents["generator"]["class"] == STOCK_CLASSES["mlm"][exported.architecture]
    loaded = load(exported.folder / "generator", "AutoModelForMaskedLM")
    table = proposer.network.get_input_embeddings().weight
    torch.testing.assert_close(loaded.get_input_embeddings().weight, table)
    inputs = AutoTokenizer.from_pretrained(exported.folder / "generator")("a lazy [MASK] runs", return_tensors="pt")
    with torch.no_grad():
        ours = proposer.head.logits(proposer.network(**inputs).last_hidden_state, table)
        torch.testing.assert_close(loaded(**inputs).logits, ours, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("folder", ["heads/mlm", "generator"])
def test_fill_mask_runs(folder, exported):
    guesses = pipeline("fill-mask", str(exported.folder / folder), device="cpu")("The [MASK] runs.", top_k=3)
    assert len(guesses) == 3
    assert all(0 < guess["score"] < 1 for guess in guesses)


@pytest.mark.parametrize("encoder", ["electra-tiny", "tiny"])
@pytest.mark.parametrize("sharing", ["none", "hard"])
def test_shared_tables_come_out_as_tables_of_their_own(encoder, sharing, tokenizer, tmp_path):
    model = make_model(encoder, "rtd", tokenizer, sharing)
    export_to(tmp_path, model, tokenizer)
    for loaded, network in (
        (load(tmp_path), model.encoder),
        (load(tmp_path / "generator", "AutoModelForMaskedLM"), model.generators["rtd"].network),
    ):
        torch.testing.assert_close(loaded.get_input_embeddings().weight, network.get_input_embeddings().weight)


@pytest.mark.parametrize("encoder", ["bert-tiny", "tiny"])
def test_a_sequence_head_other_than_nsp_is_a_sequence_classifier(encoder, tokenizer, tmp_path):
    model = make_model(encoder, "sentence_shuffle", tokenizer)
    contents = export_to(tmp_path, model, tokenizer)
    loaded = load(tmp_path / "heads/sentence_shuffle", "AutoModelForSequenceClassification")
    assert type(loaded).__name__ == contents["heads/sentence_shuffle"]["class"]
    assert type(loaded).__name__.endswith("ForSequenceClassification")
    assert loaded.config.id2label == {0: "in_order", 1: "shuffled"}


def test_the_token_classification_pipeline_names_replaced_tokens(tokenizer, tmp_path):
    export_to(tmp_path, make_model("tiny", "rtd", tokenizer), tokenizer)
    found = pipeline("token-classification", str(tmp_path / "heads/rtd"), device="cpu", ignore_labels=[])("A dog runs.")
    assert {token["entity"] for token in found} <= {"original", "replaced"}
    assert len(found) == len(tokenizer.tokenize("A dog runs."))


def test_a_pooler_is_the_sequence_head_s_transform(exported):
    here, loaded = exported.contents["."], load(exported.folder)
    assert here["untrained"] == []
    assert here["pooler_from"] == ("nsp" if exported.architecture in ("bert", "roberta") else None)
    assert hasattr(loaded, "pooler") == (here["pooler_from"] is not None)
    if here["pooler_from"]:
        assert torch.equal(loaded.pooler.dense.weight, exported.model.heads["nsp"].transform.dense.weight)
        assert torch.equal(loaded.pooler.dense.bias, exported.model.heads["nsp"].transform.dense.bias)


def test_a_pooler_that_nothing_trained_is_recorded_and_always_the_same(tokenizer, tmp_path):
    model = make_model("bert-tiny", "mlm", tokenizer)
    poolers = []
    for number in range(2):
        torch.manual_seed(number)
        here = export_to(tmp_path / str(number), model, tokenizer)["."]
        assert (here["pooler_from"], here["untrained"]) == (None, ["pooler.dense.bias", "pooler.dense.weight"])
        poolers.append(load(tmp_path / str(number)).pooler.dense.weight)
    assert torch.equal(*poolers)
    assert poolers[0].std() > 0


def test_export_leaves_the_model_and_the_stream_of_chance_as_they_were(tokenizer, tmp_path):
    model = make_model("bert-tiny", "rtd", tokenizer, "gdes").train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    settings = model.encoder.config.to_dict()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    export_to(tmp_path, model, tokenizer)
    assert torch.equal(torch.rand(3), expected)
    assert model.encoder.training
    assert model.encoder.config.to_dict() == settings
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert "token_type_ids" in tokenizer.model_input_names
    assert tokenizer.model_max_length > 32


def test_low_precision_is_exported_as_float32(tokenizer, tmp_path):
    model = make_model("tiny", "mlm", tokenizer)
    for parameter in model.parameters():
        parameter.data = parameter.data.to(torch.bfloat16)
    export_to(tmp_path, model, tokenizer)
    for folder in (tmp_path, tmp_path / "heads/mlm"):
        assert {tensor.dtype for tensor in load_file(folder / "model.safetensors").values()} == {torch.float32}
        assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def test_a_generator_that_does_not_learn_is_not_exported(tokenizer, tmp_path):
    contents = export_to(tmp_path, make_model("tiny", "rtd", tokenizer, learned=False), tokenizer)
    assert set(contents) == {".", "heads/rtd"}
    assert not (tmp_path / "generator").exists()


def test_a_head_that_transformers_does_not_know_is_kept_as_it_is(tokenizer, tmp_path):
    class OwnHead(SequenceHead):
        pass

    model = make_model("bert-tiny", "sentence_shuffle", tokenizer)
    model.heads["sentence_shuffle"] = OwnHead(model.encoder.config, "is_shuffled", 2)
    assert find_stock_head(model.heads["sentence_shuffle"], model.encoder.config) is None
    contents = export_to(tmp_path, model, tokenizer)
    record = contents["heads/sentence_shuffle"]
    assert record["class"] is None
    assert record["head_class"].endswith("OwnHead")
    assert record["labels"] == {"is_shuffled": ["in_order", "shuffled"]}
    saved = load_file(tmp_path / "heads/sentence_shuffle/head.safetensors")
    assert saved.keys() == model.heads["sentence_shuffle"].state_dict().keys()


def test_what_else_is_in_the_run_folder_stays_and_a_second_export_replaces_the_first(tokenizer, tmp_path):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    for bias in range(2):
        model = make_model("tiny", "mlm", tokenizer)
        with torch.no_grad():
            model.heads["mlm"].bias += bias
        export_to(tmp_path, model, tokenizer)
    assert (tmp_path / "metrics.jsonl").read_text() == "{}\n"
    assert (tmp_path / "checkpoints").is_dir()
    loaded = load(tmp_path / "heads/mlm", "AutoModelForMaskedLM")
    assert torch.equal(loaded.decoder.bias, model.heads["mlm"].bias)
    assert not [path for path in tmp_path.rglob(".*")]


def test_files_have_the_permissions_that_the_umask_leaves(tokenizer, tmp_path):
    old = os.umask(0o027)
    try:
        export_to(tmp_path / "run", make_model("tiny", "mlm", tokenizer), tokenizer)
    finally:
        os.umask(old)
    files = [path for path in (tmp_path / "run").rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o640}
    assert {"model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in files}


def test_no_file_names_where_an_earlier_encoder_or_tokenizer_was_loaded_from(tokenizer, tmp_path):
    export_to(tmp_path / "first", make_model("bert-tiny", "mlm", tokenizer), tokenizer)
    loaded = AutoTokenizer.from_pretrained(tmp_path / "first")
    export_to(tmp_path / "second", make_model(str(tmp_path / "first"), "mlm+nsp", loaded), loaded)
    for path in (tmp_path / "second").rglob("*.json"):
        assert str(tmp_path) not in path.read_text()


def test_an_interrupted_export_leaves_nothing_under_a_final_name(tokenizer, tmp_path, monkeypatch):
    def interrupt(*_args: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(export, "_compare", interrupt)
    with pytest.raises(KeyboardInterrupt):
        export_to(tmp_path, make_model("tiny", "mlm", tokenizer), tokenizer)
    assert [path.name for path in tmp_path.rglob("*")] == ["heads"]


def test_files_appear_only_when_all_of_them_are_written_and_the_named_one_last(tmp_path, monkeypatch):
    order = []
    replace = os.replace

    def watch(source: Path, target: Path) -> None:
        order.append(Path(target).name)
        replace(source, target)

    def write(place: Path) -> None:
        for name in ("a", "config.json", "z"):
            (place / name).write_text(name)
        assert [path for path in tmp_path.iterdir() if path != place] == []

    monkeypatch.setattr(os, "replace", watch)
    publish_files(tmp_path, write, last="config.json")
    assert order == ["a", "z", "config.json"]
    assert {path.name for path in tmp_path.iterdir()} == set(order)


@pytest.mark.parametrize("wrong", ["shape of the word table", "epsilon", "name"])
def test_an_export_that_differs_from_the_model_is_refused(wrong, tokenizer, tmp_path, monkeypatch):
    make_config, rename = export.make_stock_config, export.rename_head

    def change_config(*args):
        config = make_config(*args)
        config.norm_eps = 1e-3
        return config

    def change_names(stock, tensors):
        renamed = rename(stock, tensors)
        renamed["head.bias"] = renamed.pop("decoder.bias")
        return renamed

    def change_table(stock, tensors):
        return rename(stock, tensors) | {"model.embeddings.tok_embeddings.weight": torch.zeros(7, 32)}

    target, change = {
        "shape of the word table": ("rename_head", change_table),
        "epsilon": ("make_stock_config", change_config),
        "name": ("rename_head", change_names),
    }[wrong]
    monkeypatch.setattr(export, target, change)
    with pytest.raises(RuntimeError):
        export_to(tmp_path, make_model("tiny", "mlm", tokenizer), tokenizer)
    assert not (tmp_path / "heads/mlm").exists()


STRANGER = """
import json, sys
from pathlib import Path
import torch, transformers
from transformers import AutoTokenizer
assert not {"corpora", "objectives", "generators", "training"} & set(sys.modules)
root = Path(sys.argv[1])
outputs = {}
for folder, entry in json.loads((root / "export.json").read_text())["folders"].items():
    if entry["class"] is None:
        continue
    loader = getattr(transformers, entry["load_with"])
    model, report = loader.from_pretrained(root / folder, output_loading_info=True)
    assert not any(report.values()), report
    assert type(model).__name__ == entry["class"]
    inputs = AutoTokenizer.from_pretrained(root / folder)("The lazy dog runs", "and a small cat", return_tensors="pt")
    with torch.no_grad():
        outputs[folder] = model.eval()(**inputs, output_hidden_states=True).hidden_states[-1]
torch.save(outputs, root / "outputs.pt")
"""


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_process_that_has_only_transformers_gets_the_same_hidden_states(encoder, tokenizer, tmp_path):
    model = make_model(encoder, "mlm+rtd+nsp", tokenizer, "gdes", size=(4, 128, 2))
    expected = hidden_states(model, tokenizer)
    run = tmp_path / "run"
    contents = export_to(run, model, tokenizer)
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    environment.pop("PYTHONPATH", None)
    command = [sys.executable, "-c", STRANGER, str(run)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    outputs = torch.load(run / "outputs.pt")
    assert set(outputs) == {folder for folder, entry in contents.items() if entry["class"]}
    for folder, hidden in outputs.items():
        if folder != "generator":
            torch.testing.assert_close(hidden, expected, atol=1e-5, rtol=0)
