"""The store: what is written is what was read, once, whole, and with no sentence on both sides."""

import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from corpora import Corpus, CorpusSettings, TextSource, build, encode, open_corpus, prepare_corpus, store
from corpora.errors import CorpusError, StorageError, UserError
from corpora.sentences import RuleSegmenter
from tests.encoding import encode_sentences

ROOT = Path(__file__).parent.parent
WORDS = "river stone cloud winter garden market silver engine letter window harbour copper forest island castle".split()


def make_sentence(rng: random.Random) -> str:
    return " ".join(rng.choices(WORDS, k=rng.randint(3, 12))).capitalize() + "."


def make_documents(count: int, seed: int = 0) -> list[str]:
    """Documents of one to four paragraphs of one to six sentences."""
    rng = random.Random(seed)
    return [
        "\n".join(" ".join(make_sentence(rng) for _ in range(rng.randint(1, 6))) for _ in range(rng.randint(1, 4)))
        for _ in range(count)
    ]


def write_text(path: Path, documents: list[str]) -> Path:
    path.write_text("\n\n".join(documents) + "\n")
    return path


def make_settings(path: Path, **changes: Any) -> CorpusSettings:
    return CorpusSettings(**({"source": TextSource(location=str(path)), "vocab_size": 90} | changes))


def prepare(path: Path, cache: Path, processes: int | None = None, **changes: Any) -> Corpus:
    return prepare_corpus(make_settings(path, **changes), cache, progress=False, processes=processes)


def split(text: str) -> list[str]:
    return [text[start:end] for start, end in RuleSegmenter("en").split(text)]


def read_sides(corpus: Corpus) -> tuple[list[list[tuple[int, ...]]], list[list[tuple[int, ...]]]]:
    """Return the training documents and the held-out ones, as lists of sentences of token ids."""
    sides: tuple[list[list[tuple[int, ...]]], list[list[tuple[int, ...]]]] = ([], [])
    for document in range(corpus.num_documents):
        begin, end = corpus.document_offsets[document : document + 2]
        bounds = corpus.sentence_offsets[begin : end + 1]
        sentences = [tuple(corpus.token_ids[a:b].tolist()) for a, b in zip(bounds, bounds[1:], strict=False)]
        sides[int(corpus.is_held_out[document])].append(sentences)
    return sides


def encode_documents(corpus: Corpus, documents: list[str]) -> list[list[tuple[int, ...]]]:
    """Encode each sentence on its own, as the store should have."""
    tokenizer = corpus.load_tokenizer()
    return [[tuple(encode_sentences(tokenizer, [each])[0].tolist()) for each in split(text)] for text in documents]


def read_files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_text(tmp_path / "text.txt", make_documents(30))


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def test_every_sentence_is_stored_as_the_tokenizer_encodes_it(path: Path, cache: Path) -> None:
    corpus = prepare(path, cache, held_out_rate=0.0)
    documents = make_documents(30)
    assert read_sides(corpus) == (encode_documents(corpus, documents), [])
    _, _, word_starts = encode_sentences(corpus.load_tokenizer(), [each for text in documents for each in split(text)])
    assert (corpus.gather_word_starts(np.arange(corpus.num_tokens)) == word_starts).all()
    positions = np.array([[5, 0], [corpus.num_tokens - 1, 17]])
    assert (corpus.gather_word_starts(positions) == word_starts[positions]).all()
    assert not word_starts.all()
    first_of_line = [place == 0 for text in documents for line in text.split("\n") for place in range(len(split(line)))]
    assert corpus.paragraph_starts.tolist() == first_of_line
    assert corpus.metadata["counts"]["words"] == sum(len(text.split()) for text in documents)


def test_arrays_have_the_promised_types_and_are_read_only(path: Path, cache: Path) -> None:
    corpus = prepare(path, cache)
    num_tokens, num_sentences, num_documents = corpus.num_tokens, corpus.num_sentences, corpus.num_documents
    expected = {
        "token_ids": ("uint16", num_tokens),
        "word_start_bits": ("uint8", -(-num_tokens // 8)),
        "sentence_offsets": ("int64", num_sentences + 1),
        "document_offsets": ("int64", num_documents + 1),
        "paragraph_starts": ("bool", num_sentences),
        "is_held_out": ("bool", num_documents),
        "unigram_counts": ("int64", corpus.vocabulary.size),
    }
    for name, (dtype, length) in expected.items():
        array = getattr(corpus, name)
        assert (array.dtype, array.shape) == (dtype, (length,)), name
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 0
    assert corpus.sentence_offsets[-1] == num_tokens and corpus.document_offsets[-1] == num_sentences


def test_how_sentences_are_batched_changes_no_byte(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = prepare(path, tmp_path / "whole")
    monkeypatch.setattr(encode, "_BATCH_SENTENCES", 3)
    pieces = prepare(path, tmp_path / "pieces")
    monkeypatch.setattr(encode, "_BATCH_SENTENCES", 8192)
    monkeypatch.setattr(encode, "_BATCH_CHARACTERS", 100)
    characters = prepare(path, tmp_path / "characters")
    assert read_files(whole.folder) == read_files(pieces.folder) == read_files(characters.folder)


@pytest.mark.slow
def test_a_segmenter_that_was_learned_goes_to_the_processes(path: Path, tmp_path: Path) -> None:
    pytest.importorskip("nltk")
    alone = prepare(path, tmp_path / "alone", segmenter="punkt")
    assert read_files(prepare(path, tmp_path / "two", processes=2, segmenter="punkt").folder) == read_files(
        alone.folder
    )


@pytest.mark.slow
@pytest.mark.parametrize("held_out", [None, "second.txt"])
def test_how_many_processes_encode_changes_no_byte(
    path: Path, tmp_path: Path, held_out: str | None, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = {}
    if held_out:
        (tmp_path / held_out).write_text("A second text stands apart.\n\nIt has two documents. Both are short.\n")
        settings["held_out"] = TextSource(location=str(tmp_path / held_out))
    alone = read_files(prepare(path, tmp_path / "alone", **settings).folder)
    for processes in (2, 5):
        folder = prepare(path, tmp_path / str(processes), processes=processes, **settings).folder
        assert read_files(folder) == alone, processes
        assert not capfd.readouterr().err  # the processes end without a word


def test_more_processes_than_documents_are_not_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "two.txt").write_text("The first document is here.\n\nThe second one follows it.\n")
    alone = read_files(prepare(tmp_path / "two.txt", tmp_path / "alone", vocab_size=100).folder)
    started = []
    popen = encode.subprocess.Popen
    monkeypatch.setattr(encode.subprocess, "Popen", lambda *a, **k: started.append(a) or popen(*a, **k))
    nine = prepare(tmp_path / "two.txt", tmp_path / "nine", vocab_size=100, processes=9)
    assert read_files(nine.folder) == alone and len(started) == 2


def test_a_spool_is_cut_between_documents_into_parts_of_about_equal_size() -> None:
    lengths = np.random.default_rng(0).integers(1, 2000, 500)
    for number in (1, 2, 7, 500, 900):
        parts = encode.cut_parts(lengths, number)
        starts = np.concatenate([[0], np.cumsum(lengths + 8)])
        assert [part.offset for part in parts] == starts[[part.document for part in parts]].tolist()
        assert sum(part.size for part in parts) == starts[-1] and min(part.size for part in parts) > 0
        assert len(parts) <= number and max(part.size for part in parts) <= starts[-1] / number + 2 * lengths.max()
    assert [part.document for part in encode.cut_parts(np.array([9000, 1, 1]), 3)] == [0, 1]
    assert [part.document for part in encode.cut_parts(np.array([4500, 5500]), 2)] == [0, 1]


OUTLIVING = """
import os, threading, time
from corpora.encode import _end_with_parent
threading.Thread(target=_end_with_parent, daemon=True).start()
os.write(2, b"started\\n")
time.sleep(30)
os.write(2, b"outlived\\n")
"""


@pytest.mark.slow
def test_a_process_ends_when_its_parent_is_killed(path: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from corpora import CorpusSettings, TextSource, encode, prepare_corpus; "
        "encode._CHILD = sys.argv[3]; source = TextSource(location=sys.argv[1]); "
        "prepare_corpus(CorpusSettings(source=source, vocab_size=90), Path(sys.argv[2]), processes=2)"
    )
    words = [sys.executable, "-c", code, str(path), str(tmp_path / "cache"), OUTLIVING]
    environment = os.environ | {"PYTHONPATH": "."}
    with subprocess.Popen(words, cwd=ROOT, stderr=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stderr
        started = [parent.stderr.readline() for _ in range(2)]
        parent.kill()
        said = parent.stderr.read()  # ends where no child is left that holds it
    assert started == ["started\n"] * 2 and "outlived" not in said


@pytest.mark.parametrize(
    ("child", "error", "said"),
    [
        ("import os; os.kill(os.getpid(), 9)", CorpusError, "was killed, as is done where memory is short"),
        ("import json; print(json.dumps({'said': 'changed; start again'}))", CorpusError, "changed; start again"),
        ("import sys; sys.exit(3)", CorpusError, "process [12] of the 2 that encode the text ended with status 3"),
        (
            "import json, sys; print(json.dumps({'errno': 28, 'strerror': 'full', 'filename': sys.argv[3]}))",
            StorageError,
            "No space left on device",
        ),
    ],
)
def test_a_process_that_fails_is_told_in_one_line_and_leaves_nothing(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, child: str, error: type[Exception], said: str
) -> None:
    monkeypatch.setattr(encode, "_CHILD", child)
    with pytest.raises(error, match=said):
        prepare(path, cache, processes=2)
    assert [found.name for found in cache.iterdir() if not found.name.endswith(".lock")] == []


def test_unigram_counts_and_entropy_are_those_of_the_training_side(path: Path, cache: Path) -> None:
    corpus = prepare(path, cache, held_out_rate=0.3)
    training, held_out = read_sides(corpus)
    ids = [token for document in training for sentence in document for token in sentence]
    assert held_out
    assert corpus.unigram_counts.tolist() == [ids.count(token) for token in range(corpus.vocabulary.size)]
    rates = np.array([ids.count(token) / len(ids) for token in set(ids)])
    assert corpus.unigram_entropy == pytest.approx(-(rates * np.log(rates)).sum())


@pytest.mark.slow
def test_a_large_vocabulary_is_stored_in_32_bits(path: Path, tmp_path: Path, cache: Path) -> None:
    vocabulary = {f"filler{number}": number for number in range(70_000)}
    words = ["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", ".", *WORDS, *(word.capitalize() for word in WORDS)]
    vocabulary |= {word: 70_000 + number for number, word in enumerate(words)}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    names = {f"{name}_token": f"[{name.upper()}]" for name in ("unk", "pad", "cls", "sep", "mask")}
    PreTrainedTokenizerFast(tokenizer_object=backend, **names).save_pretrained(tmp_path / "tokenizer")
    corpus = prepare(path, cache, tokenizer=str(tmp_path / "tokenizer"))
    assert corpus.token_ids.dtype == np.uint32
    assert corpus.token_ids.min() >= 70_000
    assert corpus.metadata["counts"]["unknown_tokens"] == 0
    assert corpus.load_tokenizer().get_vocab() == vocabulary


def test_a_second_start_opens_what_the_first_has_built(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(path, cache)
    monkeypatch.setattr(store, "build_store", lambda *_: pytest.fail("was built again"))
    assert prepare(path, cache).fingerprint == first.fingerprint
    assert open_corpus(first.folder).fingerprint == first.fingerprint


def test_a_pickled_corpus_is_small_and_maps_the_same_files(path: Path, cache: Path) -> None:
    corpus = prepare(path, cache)
    content = pickle.dumps(corpus)
    assert len(content) < 1000
    assert (pickle.loads(content).token_ids == corpus.token_ids).all()


@pytest.mark.parametrize("seed", range(8))
def test_no_sentence_is_in_both_and_nothing_else_is_dropped(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    pool = [make_sentence(rng) for _ in range(40)]
    lines = [" ".join(rng.choices(pool, k=rng.randint(1, 3))) for _ in range(200)]
    documents = ["\n".join(rng.choices(lines, k=rng.randint(1, 3))) for _ in range(60)]
    documents += rng.choices(documents, k=10) + make_documents(20, seed)
    corpus = prepare(write_text(tmp_path / "text.txt", documents), tmp_path / "cache", held_out_rate=0.4)
    training, held_out = read_sides(corpus)
    seen = {sentence for document in training for sentence in document}
    assert held_out
    assert seen.isdisjoint(sentence for document in held_out for sentence in document)

    encoded = encode_documents(corpus, documents)
    trained = {tuple(document) for document in training}
    others = [document for document in encoded if tuple(document) not in trained]
    assert training == [document for document in encoded if tuple(document) in trained]
    remaining = [[sentence for sentence in document if sentence not in seen] for document in others]
    assert held_out == [document for document in remaining if document]
    counts = corpus.metadata["counts"]
    all_sentences = [sentence for document in encoded for sentence in document]
    assert counts["held_out_sentences_dropped"] == len(all_sentences) - corpus.num_sentences > 0
    assert counts["documents_dropped"] == len(documents) - corpus.num_documents
    assert counts["duplicate_documents"] == len(documents) - len(set(documents))
    assert counts["duplicate_sentences"] == len(all_sentences) - len(set(all_sentences))


def test_a_paragraph_whose_first_sentence_is_dropped_still_starts(tmp_path: Path, cache: Path) -> None:
    shared = "This sentence is everywhere."
    documents = [f"{shared} River stone {word}.\nCloud {word} winter." for word in WORDS]
    corpus = prepare(write_text(tmp_path / "text.txt", documents), cache, held_out_rate=0.5)
    for document in np.flatnonzero(corpus.is_held_out):
        begin, end = corpus.document_offsets[document : document + 2]
        assert corpus.paragraph_starts[begin:end].tolist() == [True, True]
    assert corpus.metadata["counts"]["held_out_sentences_dropped"] == corpus.is_held_out.sum() > 0


def test_the_same_words_in_another_order_are_another_sentence(tmp_path: Path, cache: Path) -> None:
    documents = [" ".join(WORDS[place:] + WORDS[:place]) for place in range(len(WORDS))]
    corpus = prepare(write_text(tmp_path / "text.txt", documents), cache, held_out_rate=0.5)
    assert corpus.num_sentences == len(WORDS) and corpus.is_held_out.any()
    assert corpus.metadata["counts"]["duplicate_sentences"] == 0


def test_copies_of_a_document_are_all_on_one_side(tmp_path: Path, cache: Path) -> None:
    documents = make_documents(40)
    corpus = prepare(write_text(tmp_path / "text.txt", documents * 3), cache, held_out_rate=0.4)
    assert corpus.metadata["counts"]["duplicate_documents"] == 80
    training, held_out = read_sides(corpus)
    assert len(training) % 3 == len(held_out) % 3 == 0 and held_out


def test_a_document_stays_on_its_side_when_others_come_and_go() -> None:
    hashes = np.random.default_rng(0).integers(0, 1 << 64, 100_000, dtype=np.uint64)
    chosen = build.choose_held_out(hashes, 0.02)
    assert chosen.mean() == pytest.approx(0.02, abs=0.002)
    assert (build.choose_held_out(hashes[5000:90_000:2], 0.02) == chosen[5000:90_000:2]).all()


@pytest.mark.parametrize("rate", [1e-9, 0.02, 0.5, 0.999999999])
def test_two_documents_that_differ_give_one_to_each_side(rate: float, tmp_path: Path, cache: Path) -> None:
    corpus = prepare(write_text(tmp_path / "text.txt", make_documents(2)), cache, held_out_rate=rate)
    assert sorted(corpus.is_held_out.tolist()) == [False, True]


def test_a_rate_of_zero_a_single_document_and_its_copies_hold_nothing_out(path: Path, tmp_path: Path) -> None:
    assert not prepare(path, tmp_path / "a", held_out_rate=0.0).is_held_out.any()
    for copies in (1, 3):
        text = write_text(tmp_path / "one.txt", make_documents(1) * copies)
        corpus = prepare(text, tmp_path / "b", held_out_rate=0.9)
        assert corpus.is_held_out.tolist() == [False] * copies


def test_text_that_is_given_for_it_is_held_out_and_nothing_else(
    path: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    train = build.train_tokenizer
    monkeypatch.setattr(build, "train_tokenizer", lambda texts, *rest: train(iter(shown.extend(texts) or shown), *rest))
    documents = path.read_text().strip().split("\n\n")
    apart = [*make_documents(3, seed=1), documents[0] + " " + "Only here is a harbour of silver."]
    valid = TextSource(location=str(write_text(tmp_path / "valid.txt", apart)))
    corpus = prepare(path, cache, held_out=valid)
    assert corpus.is_held_out.tolist() == [False] * len(documents) + [True] * len(apart)
    assert shown == documents  # the tokenizer learns from the training text alone
    training, held_out = read_sides(corpus)
    assert [len(document) for document in training] == [sum(map(len, map(split, d.split("\n")))) for d in documents]
    assert len(held_out[-1]) == 1  # the sentences that training has too are left out
    assert prepare(path, cache, held_out=valid, held_out_rate=0.5).folder == corpus.folder
    write_text(tmp_path / "valid.txt", apart[:3])
    assert prepare(path, cache, held_out=valid).is_held_out.sum() == 3
    with pytest.raises(CorpusError, match="there is no file or folder"):
        prepare(path, cache, held_out=TextSource(location=str(tmp_path / "absent.txt")))
    with pytest.raises(CorpusError, match="all of it stands in the training text"):
        prepare(path, cache, held_out=TextSource(location=str(path)))


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_that_is_no_share_is_refused(rate: float, path: Path, cache: Path) -> None:
    with pytest.raises(UserError, match="held_out_rate is"):
        prepare(path, cache, held_out_rate=rate)


def test_the_tokenizer_is_trained_on_the_training_side_alone(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    train = build.train_tokenizer
    monkeypatch.setattr(build, "train_tokenizer", lambda texts, *rest: train(iter(shown.extend(texts) or shown), *rest))
    corpus = prepare(path, cache, held_out_rate=0.3)
    documents = make_documents(30)
    is_held_out = build.choose_held_out(hash_texts(documents), 0.3)
    assert shown == [text for text, held_out in zip(documents, is_held_out, strict=True) if not held_out]
    assert 0 < corpus.is_held_out.sum() < 30


def hash_texts(texts: list[str]) -> np.ndarray:
    digests = [hashlib.blake2b(text.encode(), digest_size=16).digest()[:8] for text in texts]
    return np.frombuffer(b"".join(digests), "<u8")


def test_a_sample_is_bounded_and_spread_over_the_corpus() -> None:
    rng = random.Random(0)
    sample = build._Sample(50_000)
    for number in range(2000):
        sample.add(rng.getrandbits(64), number, str(number).rjust(200, "x"), 200)
    taken = [int(text.strip("x")) for text in sample.take(np.ones(2000, bool))]
    assert 120 <= len(taken) <= 250
    assert taken == sorted(taken)
    assert np.mean(taken) == pytest.approx(1000, abs=150)


def test_a_sample_cuts_a_text_that_is_larger_than_all_of_it() -> None:
    sample = build._Sample(1000)
    sample.add(5, 0, "a" * 5000, 5000)
    assert list(sample.take(np.ones(1, bool))) == ["a" * 1000]


def test_each_setting_and_each_byte_of_text_has_a_store_of_its_own(path: Path, tmp_path: Path, cache: Path) -> None:
    first = prepare(path, cache)
    changes: list[dict[str, Any]] = [
        {"vocab_size": 200},
        {"tokenizer_kind": "bpe", "vocab_size": 300},
        {"lowercase": True},
        {"language": "it"},
        {"held_out_rate": 0.1},
        {"source": TextSource(location=str(path), documents="line")},
        {"tokenizer": str(first.tokenizer_folder)},
    ]
    folders = [prepare(path, cache, **change).folder for change in changes]
    path.write_text(path.read_text().replace("River", "Rivet", 1))
    folders.append(prepare(path, cache).folder)
    assert len({first.folder, *folders}) == len(changes) + 2


def test_a_changed_tokenizer_has_a_store_of_its_own(path: Path, cache: Path, tmp_path: Path) -> None:
    tokenizer = tmp_path / "tokenizer"
    shutil.copytree(prepare(path, cache).tokenizer_folder, tokenizer)
    first = prepare(path, cache, tokenizer=str(tokenizer))
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    content["normalizer"]["lowercase"] = True
    (tokenizer / "tokenizer.json").write_text(json.dumps(content))
    second = prepare(path, cache, tokenizer=str(tokenizer))
    assert first.folder != second.folder and first.fingerprint != second.fingerprint


def test_a_change_of_our_own_code_has_a_store_of_its_own(
    path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = prepare(path, cache)
    assert len(store._CODE) >= 4
    monkeypatch.setattr(store, "_CODE", [*store._CODE[:-1], store._CODE[-1] + " "])
    second = prepare(path, cache)
    assert second.folder != first.folder and second.fingerprint == first.fingerprint


def test_text_that_moves_keeps_its_store_and_fingerprint(path: Path, tmp_path: Path, cache: Path) -> None:
    first = prepare(path, cache)
    (tmp_path / "elsewhere").mkdir()
    moved = prepare(path.rename(tmp_path / "elsewhere" / path.name), cache)
    assert moved.folder == first.folder and moved.fingerprint == first.fingerprint


def test_the_fingerprint_is_of_the_content_not_of_the_folder(path: Path, tmp_path: Path) -> None:
    first, second = prepare(path, tmp_path / "a"), prepare(path, tmp_path / "b")
    assert first.fingerprint == second.fingerprint
    assert first.fingerprint != prepare(path, tmp_path / "a", held_out_rate=0.5).fingerprint


def damage(name: str, how: str, folder: Path) -> None:
    target = folder / name
    content = target.read_bytes()
    if how == "missing":
        target.unlink()
    else:
        middle = len(content) // 2
        flipped = content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]
        target.write_bytes({"cut": content[:-2], "longer": content + b"\0", "empty": b"", "flipped": flipped}[how])


FILES = [f"{name}.bin" for name in build.DTYPES] + ["metadata.json", "tokenizer/tokenizer.json"]


@pytest.mark.parametrize("how", ["missing", "cut", "longer", "empty", "flipped"])
def test_a_damaged_store_is_refused_and_built_again_with_a_warning(
    how: str, path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(path, cache).folder
    clean = read_files(folder)
    for name in FILES:
        damage(name, how, folder)
        with pytest.raises(CorpusError, match=str(folder)):
            open_corpus(folder)
        capsys.readouterr()
        prepare(path, cache)
        assert "warning: " in (said := capsys.readouterr().err) and str(folder) in said, name
        assert read_files(folder) == clean, name


def test_large_files_are_known_by_their_size(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = prepare(path, cache).folder
    monkeypatch.setattr(store, "CHECKED_BYTES", 0)
    clean = (folder / "token_ids.bin").read_bytes()
    for content in (clean[:-2], clean + b"\0\0"):
        (folder / "token_ids.bin").write_bytes(content)
        with pytest.raises(CorpusError, match="token_ids.bin has"):
            open_corpus(folder)


def test_a_store_under_the_name_of_another_is_not_taken_for_it(path: Path, cache: Path) -> None:
    first, second = prepare(path, cache), prepare(path, cache, held_out_rate=0.5)
    clean = read_files(second.folder)
    shutil.rmtree(second.folder)
    shutil.copytree(first.folder, second.folder)
    assert read_files(prepare(path, cache, held_out_rate=0.5).folder) == clean


@pytest.mark.parametrize("content", ["", "[]", "null", "{}", '{"format": 1}', '{"format": 1, "sum": 5}', "{" * 10_000])
def test_metadata_of_any_shape_are_refused_in_one_line(content: str, path: Path, cache: Path) -> None:
    folder = prepare(path, cache).folder
    (folder / "metadata.json").write_text(content)
    with pytest.raises(CorpusError, match="metadata.json") as caught:
        open_corpus(folder)
    assert "\n" not in str(caught.value)


def test_a_file_in_the_place_of_the_store_is_replaced(
    path: Path, cache: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = prepare(path, cache).folder
    shutil.rmtree(folder)
    folder.write_text("in the way")
    assert prepare(path, cache).num_documents > 0
    assert "preparing it again" in capsys.readouterr().err


def test_a_folder_without_a_store_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="is not a prepared corpus"):
        open_corpus(tmp_path / "nothing")


def test_what_a_killed_process_left_is_swept_and_built_anew(path: Path, tmp_path: Path, cache: Path) -> None:
    clean = prepare(path, tmp_path / "clean")
    for key in (clean.folder.name, "0123456789abcdef"):
        litter = cache / f".tmp-{key}-99999-abcd" / "work"
        litter.mkdir(parents=True)
        (litter / "text").write_text("half")
    corpus = prepare(path, cache)
    assert read_files(corpus.folder) == read_files(clean.folder)
    assert not list(cache.glob(".tmp-*"))


def test_a_build_that_fails_leaves_nothing_behind(path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "_assemble", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        prepare(path, cache)
    assert [found.name for found in cache.iterdir() if not found.name.endswith(".lock")] == []


def test_every_file_has_the_permissions_that_the_umask_leaves(path: Path, cache: Path) -> None:
    previous = os.umask(0o027)
    try:
        corpus = prepare(path, cache)
    finally:
        os.umask(previous)
    files = [found for found in corpus.folder.rglob("*") if found.is_file()]
    assert {oct(found.stat().st_mode & 0o777) for found in files} == {"0o640"}
    assert {oct(found.stat().st_mode & 0o777) for found in (corpus.folder, corpus.tokenizer_folder)} == {"0o750"}


def test_the_cache_is_where_the_environment_says(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRETEXT_CACHE", str(tmp_path / "chosen"))
    assert prepare_corpus(make_settings(path), progress=False).folder.parent == tmp_path / "chosen"
    monkeypatch.delenv("PRETEXT_CACHE")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert prepare_corpus(make_settings(path), progress=False).folder.parent == tmp_path / "home" / ".cache" / "pretext"


def test_a_missing_home_and_a_closed_folder_ask_for_another_cache(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PRETEXT_CACHE", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    with pytest.raises(StorageError, match="--cache DIR"):
        prepare_corpus(make_settings(path), progress=False)
    monkeypatch.setenv("HOME", str(path))  # a file: nothing can be made in it, not even by root
    with pytest.raises(StorageError, match="--cache DIR") as caught:
        prepare_corpus(make_settings(path), progress=False)
    assert caught.value.exit_code == 4


def test_a_full_disk_is_one_line_and_leaves_what_was_there(path: Path, tmp_path: Path, cache: Path) -> None:
    before = prepare(path, cache)
    clean = read_files(before.folder)
    larger = write_text(tmp_path / "larger.txt", make_documents(300))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))  # writing beyond fails with EFBIG
    try:
        with pytest.raises(StorageError, match="cannot write prepared corpora in .*--cache DIR"):
            prepare(larger, cache)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(cache.glob(".tmp-*"))
    assert read_files(before.folder) == clean


def test_text_without_words_is_refused_with_what_was_found(path: Path, tmp_path: Path, cache: Path) -> None:
    tokenizer = str(prepare(path, cache).tokenizer_folder)
    silent = write_text(tmp_path / "silent.txt", ["\u200b", "\u200b\u200b"])
    with pytest.raises(CorpusError, match="found 2 documents without words"):
        prepare(silent, cache, tokenizer=tokenizer)


def test_sentences_without_tokens_are_left_out_and_counted(path: Path, tmp_path: Path, cache: Path) -> None:
    tokenizer = str(prepare(path, cache).tokenizer_folder)
    mixed = write_text(tmp_path / "mixed.txt", ["River stone.\n\u200b\nCloud garden.", "\u200b", "Letter window."])
    corpus = prepare(mixed, cache, tokenizer=tokenizer, held_out_rate=0.0)
    assert corpus.document_offsets.tolist() == [0, 2, 3]
    assert (np.diff(corpus.sentence_offsets) > 0).all()
    counts = corpus.metadata["counts"]
    assert (counts["unencodable_sentences"], counts["documents_dropped"]) == (2, 1)


PROGRAM = """
import sys
from pathlib import Path
from corpora import CorpusSettings, TextSource, prepare_corpus
settings = CorpusSettings(source=TextSource(location=sys.argv[1]), vocab_size=90)
print("ready", flush=True)
sys.stdin.readline()
print(prepare_corpus(settings, Path(sys.argv[2]), progress=False).fingerprint)
"""


def start(path: Path, cache: Path) -> subprocess.Popen[str]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", PROGRAM, str(path), str(cache)], cwd=ROOT, text=True, **pipes)


def release(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("\n")
    process.stdin.flush()


def wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"


@pytest.mark.slow
def test_two_processes_that_start_together_share_one_store(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "text.txt", make_documents(2000))
    processes = [start(path, cache) for _ in range(2)]
    for process in processes:
        wait_until_ready(process)
    for process in processes:
        release(process)
    results = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], results
    assert {said.strip() for said, _ in results} == {prepare(path, tmp_path / "clean").fingerprint}
    assert len([found for found in cache.iterdir() if found.is_dir()]) == 1
    assert sum("waiting for it" in complaint for _, complaint in results) <= 1


@pytest.mark.slow
def test_a_store_built_after_kills_at_any_moment_equals_a_clean_one(tmp_path: Path, cache: Path) -> None:
    path = write_text(tmp_path / "text.txt", make_documents(2000))
    clean = prepare(path, tmp_path / "clean")
    for stage in ("text", "token_ids.bin", "metadata.json"):
        process = start(path, cache)
        try:
            wait_until_ready(process)
            release(process)
            while process.poll() is None and not any(stage in names for _, _, names in os.walk(cache)):
                pass
        finally:
            process.send_signal(signal.SIGKILL)
            process.communicate()
        if clean.folder.name in os.listdir(cache):
            assert read_files(cache / clean.folder.name) == read_files(clean.folder)
            shutil.rmtree(cache / clean.folder.name)
    corpus = prepare(path, cache)
    assert read_files(corpus.folder) == read_files(clean.folder)
    assert not list(cache.glob(".tmp-*"))
