"""Vectors against single forward passes, the cache, and encoders that must be refused."""

import json
import shutil

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertForMaskedLM, BertModel, PreTrainedTokenizerFast, RobertaConfig, RobertaModel

from corpora.errors import UserError
from probes.encoder import load_encoder, random_twin
from probes.feature_store import FeatureStore, combine
from probes.features import extract
from probes.probe import WHOLE_TEXT, Probe

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
PIECES = ["the", "un", "##want", "##ed", "runn", "##ing", "cat", "sat", "don", "##t", "'", ".", "é", "a"]
TEXTS = ["The unwanted cat.", "running", "a don't sat", "", "é cat é", "a " * 40]
SHAPE = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}


def make_tokenizer(add_specials=True):
    words = {piece: number for number, piece in enumerate(SPECIALS + PIECES)}
    tokenizer = Tokenizer(models.WordPiece(words, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True, strip_accents=False)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    if add_specials:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("pad", "unk", "cls", "sep", "mask")}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A masked language model's folder, as `transformers` saves it."""
    folder = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = BertConfig(vocab_size=len(SPECIALS + PIECES), max_position_embeddings=20, **SHAPE)
    BertForMaskedLM(config).save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def encoder(folder):
    return load_encoder(folder, device="cpu")


def states_of(encoder, text):
    """All layers (layers, L, D) of one text alone, and its tokens."""
    encoded = encoder.tokenizer([text], return_tensors="pt")
    with torch.no_grad():
        states = encoder.network(input_ids=encoded["input_ids"], output_hidden_states=True).hidden_states
    return torch.stack(states)[:, 0].numpy(), encoder.tokenizer.convert_ids_to_tokens(encoded["input_ids"][0])


def test_the_encoder_is_frozen_and_bare(encoder):
    assert not encoder.network.training
    assert not any(parameter.requires_grad for parameter in encoder.network.parameters())
    assert (encoder.num_layers, encoder.hidden_size, encoder.max_length) == (3, 16, 20)
    assert isinstance(encoder.network, BertModel)


def test_vectors_are_means_over_the_right_pieces_in_every_layer(encoder):
    # "The unwanted cat." is [CLS] the un ##want ##ed cat . [SEP]
    places = np.array([[0, 4, 12], [0, 0, 3], [0, 13, 16], [2, 2, 5], [2, 5, 7]])
    made = extract(encoder, TEXTS, places, token_budget=16)
    states, tokens = states_of(encoder, TEXTS[0])
    assert tokens == ["[CLS]", "the", "un", "##want", "##ed", "cat", ".", "[SEP]"]
    row = made.spans.tolist().index([0, 4, 12])
    assert made.span_vectors[:, row] == pytest.approx(states[:, 2:5].mean(axis=1), abs=1e-5)
    row = made.spans.tolist().index([0, 13, 16])
    assert made.span_vectors[:, row] == pytest.approx(states[:, 5], abs=1e-5)
    assert made.text_vectors[:, 0] == pytest.approx(states[:, 1:-1].mean(axis=1), abs=1e-5)
    assert made.span_vectors.shape == (3, 5, 16) and made.texts_encoded == len(TEXTS)


@pytest.mark.parametrize(("pooling", "piece"), [("first", 2), ("last", 4)])
def test_a_word_can_be_its_first_or_its_last_piece(encoder, pooling, piece):
    made = extract(encoder, TEXTS, np.array([[0, 4, 12]]), piece_pooling=pooling, pooling="cls")
    states, _ = states_of(encoder, TEXTS[0])
    assert made.span_vectors[:, 0] == pytest.approx(states[:, piece], abs=1e-5)
    assert made.text_vectors[:, 0] == pytest.approx(states[:, 0], abs=1e-5)


def test_a_piece_that_straddles_two_words_counts_for_both(encoder):
    # treebanks cut "don't" into "do" and "n't"; the pieces are don ' [UNK]
    made = extract(encoder, TEXTS, np.array([[2, 2, 4], [2, 4, 7]]))
    states, tokens = states_of(encoder, TEXTS[2])
    assert tokens[2:4] == ["don", "'"]
    assert made.span_vectors[:, 0] == pytest.approx(states[:, 2], abs=1e-5)
    assert made.span_vectors[:, 1] == pytest.approx(states[:, 2:5].mean(axis=1), abs=1e-5)


def test_what_is_cut_off_or_empty_is_named(encoder):
    long = len(TEXTS) - 1  # 40 words where 18 fit
    places = np.array([[long, 0, 1], [long, 34, 35], [long, 36, 37], [long, 30, 37], [0, 3, 4], [3, 0, 1]])
    made = extract(encoder, TEXTS, places)
    assert made.is_truncated.tolist() == [False] * 5 + [True]
    assert made.is_empty.tolist() == [False, False, False, True, False, False]
    lost = dict(zip(map(tuple, made.spans.tolist()), made.is_lost.tolist(), strict=True))
    assert [lost[tuple(place)] for place in places.tolist()] == [False, False, True, True, True, True]
    assert (made.text_vectors[:, 3] == 0).all()


def test_the_size_of_batches_changes_nothing(encoder):
    texts = [" ".join(np.random.default_rng(seed).choice(["cat", "sat", "running"], seed % 9)) for seed in range(60)]
    one, all_at_once = (extract(encoder, texts, token_budget=budget).text_vectors for budget in (1, 100_000))
    assert one == pytest.approx(all_at_once, abs=1e-5)


def make_probe(name, texts=TEXTS, places=((0, 4, 12), (2, 8, 11)), **changes):
    places = np.array(places).reshape(-1, 1, 3) if np.ndim(places) == 2 else np.array(places)
    count = len(places)
    settings = {
        "name": name,
        "question": "",
        "texts": tuple(texts),
        "places": places,
        "labels": np.zeros(count, dtype=np.int64),
        "label_names": ("no", "yes"),
        "split": np.arange(count) % 3,
        "groups": np.arange(count),
    }
    return Probe(**(settings | changes))


def test_ten_probes_over_the_same_texts_read_each_once(encoder):
    passes = []
    hook = encoder.network.register_forward_hook(lambda module, inputs, made: passes.append(len(made[0])))
    probes = [make_probe(f"probe {n}", places=((n % 3, 0, 1), (2, n, n + 1))) for n in range(10)]
    shuffled = make_probe("other order", texts=TEXTS[::-1], places=((len(TEXTS) - 1, 4, 12),))
    store = FeatureStore(encoder, [*probes, shuffled])
    hook.remove()
    assert store.texts_encoded == sum(passes) == len(TEXTS)
    assert store.num_truncated == 1
    states, _ = states_of(encoder, TEXTS[0])
    assert store.features_for(shuffled)[2][0] == pytest.approx(states[2, 2:5].mean(axis=0), abs=1e-5)


def test_items_find_their_words_and_texts(encoder):
    words = make_probe("words", places=((0, 4, 12), (2, 8, 11), (0, 4, 12)))
    texts = make_probe("texts", places=((1, WHOLE_TEXT, WHOLE_TEXT), (0, WHOLE_TEXT, WHOLE_TEXT)))
    pair = ((0, 4, 12), (0, 13, 16)), ((0, WHOLE_TEXT, WHOLE_TEXT), (2, 0, 1))
    arcs = make_probe("arcs", places=pair, combine="arc")
    lost = make_probe("lost", places=((0, 0, 3), (3, WHOLE_TEXT, WHOLE_TEXT), (5, 60, 61)))
    store = FeatureStore(encoder, [words, texts, arcs, lost])
    states, _ = states_of(encoder, TEXTS[0])
    layers = store.features_for(words)
    assert len(layers) == store.num_layers == 3 and [each.shape for each in layers] == [(3, 16)] * 3
    assert layers[1][2] == pytest.approx(states[1, 2:5].mean(axis=0), abs=1e-5)
    assert store.features_for(texts)[1][1] == pytest.approx(states[1, 1:-1].mean(axis=0), abs=1e-5)
    child, parent = states[1, 2:5].mean(axis=0), states[1, 5]
    assert store.features_for(arcs)[1][0] == pytest.approx(np.concatenate([child, parent, child * parent]), abs=1e-5)
    assert store.split_of(lost).tolist() == [0, -1, -1]
    assert store.split_of(words).tolist() == [0, 1, 2]


def test_two_places_are_combined_as_a_probe_says():
    vectors = np.array([[[1.0, 2.0], [3.0, -1.0]]])
    assert combine(vectors, "concat").tolist() == [[1, 2, 3, -1]]
    assert combine(vectors, "pair").tolist() == [[1, 2, 3, -1, 2, 3, 3, -2]]
    assert combine(vectors, "difference").tolist() == [[1, 2, 3, -1, -2, 3]]
    assert combine(vectors, "arc").tolist() == [[1, 2, 3, -1, 3, -2]]


def test_the_cache_is_found_again_by_the_same_question_only(encoder, tmp_path):
    places = np.array([[0, 4, 12]])
    first = extract(encoder, TEXTS, places, cache=tmp_path)
    again = extract(encoder, TEXTS, places, cache=tmp_path)
    assert (first.texts_encoded, again.texts_encoded) == (len(TEXTS), 0)
    assert isinstance(again.text_vectors, np.memmap)
    assert (again.span_vectors == extract(encoder, TEXTS, places).span_vectors).all()
    assert again.is_truncated.tolist() == first.is_truncated.tolist()
    others = [
        (encoder, TEXTS[1:], places, {}),
        (encoder, TEXTS, places + [[0, 0, 1]], {}),
        (encoder, TEXTS, places, {"pooling": "cls"}),
        (encoder, TEXTS, places, {"piece_pooling": "last"}),
        (encoder, TEXTS, places, {"dtype": "float16"}),
        (random_twin(encoder, 0), TEXTS, places, {}),
        (encoder, TEXTS, None, {}),
    ]
    for which, texts, asked, options in others:
        assert extract(which, texts, asked, cache=tmp_path, **options).texts_encoded == len(texts)
    assert len(list(tmp_path.iterdir())) == 1 + len(others)


def test_an_interrupted_extraction_leaves_no_cache(encoder, tmp_path, monkeypatch):
    monkeypatch.setattr(type(encoder), "read", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        extract(encoder, TEXTS, cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_cache_is_named(encoder, tmp_path):
    extract(encoder, TEXTS, cache=tmp_path)
    vectors = next(tmp_path.glob("*/text_vectors.npy"))
    vectors.write_bytes(vectors.read_bytes()[:200])
    with pytest.raises(UserError, match="remove that folder"):
        extract(encoder, TEXTS, cache=tmp_path)


def test_half_precision_is_close_and_refuses_what_it_cannot_hold(folder, encoder):
    exact, half = (extract(encoder, TEXTS, dtype=dtype).text_vectors for dtype in ("float32", "float16"))
    assert half.dtype == np.float16
    assert half == pytest.approx(exact, abs=2e-3)
    large = load_encoder(folder, device="cpu")
    large.network.embeddings.LayerNorm.weight.data *= 1e6
    with pytest.raises(UserError, match="more than float16 can hold"):
        extract(large, TEXTS, dtype="float16")


def test_a_random_twin_shares_all_but_the_weights(encoder):
    twin = random_twin(encoder, 3)
    assert twin.weights_hash == random_twin(encoder, 3).weights_hash
    assert len({twin.weights_hash, random_twin(encoder, 4).weights_hash, encoder.weights_hash}) == 3
    assert twin.tokenizer_hash == encoder.tokenizer_hash
    table = twin.network.embeddings.word_embeddings.weight
    assert float(table.std()) == pytest.approx(0.02, rel=0.15)


def test_roberta_s_positions_start_after_its_padding(tmp_path):
    config = RobertaConfig(vocab_size=19, max_position_embeddings=20, pad_token_id=0, type_vocab_size=1, **SHAPE)
    RobertaModel(config).save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    encoder = load_encoder(tmp_path, device="cpu")
    assert encoder.max_length == 19
    assert extract(encoder, ["a " * 50]).is_truncated.tolist() == [True]


def spoil_tokenizer(folder):
    make_tokenizer(add_specials=False).save_pretrained(folder)


def spoil_vocabulary(folder):
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([f"word{number}" for number in range(9)])
    tokenizer.save_pretrained(folder)


def spoil_weights(folder):
    (folder / "model.safetensors").unlink()


def spoil_numbers(folder):
    model = BertForMaskedLM.from_pretrained(folder)
    model.bert.encoder.layer[1].output.dense.bias.data[0] = float("nan")
    model.save_pretrained(folder)


def spoil_shape(folder):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 4}))


def spoil_config(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_tokenizer, r"begins a text with .* and not with its cls token '\[CLS\]'"),
        (spoil_vocabulary, "has 28 tokens and the encoder rows for 19"),
        (spoil_weights, "can't be loaded"),
        (spoil_numbers, "layer 2 returns NaN"),
        (spoil_shape, "lacks 32 of its tensors"),
        (spoil_config, "has no config.json"),
    ],
)
def test_an_encoder_that_cannot_be_probed_is_refused_in_one_line(folder, tmp_path, spoil, message):
    broken = shutil.copytree(folder, tmp_path / "broken")
    spoil(broken)
    with pytest.raises(UserError, match=message) as refused:
        extract(load_encoder(broken, device="cpu"), TEXTS)
    assert len(str(refused.value).splitlines()) == 1


def test_a_folder_that_is_not_there_is_no_name_on_the_hub(tmp_path):
    with pytest.raises(UserError, match="there is no folder"):
        load_encoder(tmp_path / "nothing")
