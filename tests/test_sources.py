"""Reading text: what comes in comes out whole, or one line says why not."""

import gzip
import json
import os
import random
import socket
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corpora import hub
from corpora.errors import CorpusError
from corpora.lines import MAX_DOCUMENT_CHARACTERS, MAX_LINE_CHARACTERS
from corpora.sources import TextSource, fingerprint_source, list_files, read_documents

TEXT = "First line.\nSecond line.\n\nAnother document, with an é.\n"
DOCUMENTS = ["First line.\nSecond line.", "Another document, with an é."]


def zstd(content: bytes) -> bytes:
    return pa.Codec("zstd").compress(content, asbytes=True)


PACK = {"plain": bytes, "gzip": gzip.compress, "zstd": zstd}


def read(path: Path | str, **options: str) -> list[str]:
    return list(read_documents(TextSource(location=str(path), **options)))


def write(path: Path, content: bytes | str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    return path


def noise(num_bytes: int) -> bytes:
    """Text that hardly compresses, so that a cut anywhere falls into data."""
    draw = random.Random(3)
    return "".join(draw.choice("abcdefghijklmnopqrstuvwxyz \n") for _ in range(num_bytes)).encode()


@pytest.mark.parametrize("pack", PACK)
@pytest.mark.parametrize("name", ["text.txt", "text.txt.gz", "text.zst"])
def test_first_bytes_decide_the_compression_whatever_the_name(tmp_path: Path, pack: str, name: str) -> None:
    assert read(write(tmp_path / name, PACK[pack](TEXT.encode()))) == DOCUMENTS


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("blank_line", DOCUMENTS),
        ("file", ["\n".join(DOCUMENTS)]),
        ("line", ["First line.", "Second line.", "Another document, with an é."]),
    ],
)
def test_plain_text_is_cut_where_the_source_says(tmp_path: Path, documents: str, expected: list[str]) -> None:
    assert read(write(tmp_path / "a.txt", TEXT), documents=documents) == expected


@pytest.mark.parametrize("pack", PACK)
def test_json_lines_and_parquet_give_one_document_a_record(tmp_path: Path, pack: str) -> None:
    records = "".join(json.dumps({"id": n, "body": text}) + "\n" for n, text in enumerate(["One.\n\nTwo.", "Three é."]))
    lines = write(tmp_path / "a.jsonl.gz", PACK[pack](records.encode()))
    assert read(lines, text_column="body") == ["One.\nTwo.", "Three é."]
    pq.write_table(pa.table({"id": [0, 1], "body": ["One.\n\nTwo.", "Three é."]}), tmp_path / "raw")
    table = write(tmp_path / "a.parquet", PACK[pack]((tmp_path / "raw").read_bytes()))
    assert read(table, text_column="body") == ["One.\nTwo.", "Three é."]


@pytest.mark.parametrize("kind", [pa.large_string(), pa.dictionary(pa.int32(), pa.string()), pa.string_view()])
def test_parquet_reads_every_kind_of_string(tmp_path: Path, kind: pa.DataType) -> None:
    pq.write_table(pa.table({"text": pa.array(["One.", "Two.", "One."]).cast(kind)}), tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet") == ["One.", "Two.", "One."]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_compressed_file_cut_at_any_percent_is_an_error_that_names_it(tmp_path: Path, pack: str) -> None:
    packed = PACK[pack](noise(200_000))
    lengths = (
        {len(packed) * percent // 100 for percent in range(100)}
        | set(range(20))
        | {len(packed) - n for n in range(1, 20)}
    )
    for length in sorted(lengths):
        path = write(tmp_path / f"cut.txt.{'gz' if pack == 'gzip' else 'zst'}", packed[:length])
        with pytest.raises(CorpusError, match=r"cut\.txt\.\w+ is truncated"):
            read(path)


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_several_frames_are_read_whole_and_a_cut_inside_any_is_an_error(tmp_path: Path, pack: str) -> None:
    frame = PACK[pack](noise(40_000))
    packed = frame * 3
    whole = [line for line in (noise(40_000) * 3).decode().split("\n") if line.strip()]
    assert read(write(tmp_path / "whole", packed), documents="line") == whole
    for percent in range(1, 100):
        length = len(packed) * percent // 100
        if length % len(frame):
            with pytest.raises(CorpusError, match="truncated"):
                read(write(tmp_path / "cut", packed[:length]))


def test_several_frames_are_one_text(tmp_path: Path) -> None:
    for pack in (gzip.compress, zstd):
        packed = pack(b"One.\nTw") + pack(b"o.\n\nThr") + pack(b"ee.")
        assert read(write(tmp_path / "a", packed)) == ["One.\nTwo.", "Three."]


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
@pytest.mark.parametrize("garbage", [b"x", b"garbage after the end", b"\0" * 64])
def test_anything_after_the_compressed_data_is_an_error(tmp_path: Path, pack: str, garbage: bytes) -> None:
    with pytest.raises(CorpusError, match="a.gz is (damaged|truncated)"):
        read(write(tmp_path / "a.gz", PACK[pack](TEXT.encode()) + garbage))


def test_a_flipped_bit_in_gzip_is_an_error_or_changes_nothing(tmp_path: Path) -> None:
    packed, draw = gzip.compress(noise(20_000)), random.Random(5)
    whole = read(write(tmp_path / "a.gz", packed))
    for _ in range(200):
        flipped = bytearray(packed)
        flipped[draw.randrange(2, len(packed))] ^= 1 << draw.randrange(8)
        try:
            assert read(write(tmp_path / "a.gz", bytes(flipped))) == whole
        except CorpusError:
            continue


@pytest.mark.parametrize("pack", ["gzip", "zstd"])
def test_a_compression_bomb_is_refused(tmp_path: Path, pack: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corpora.compression.EXPANSION_GRACE", 1 << 20)
    with pytest.raises(CorpusError, match="grows more than 200 times"):
        read(write(tmp_path / "bomb", PACK[pack](b"word " * 4_000_000)))


def test_compressions_that_are_not_read_are_named(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="compressed with xz, which is not read; use gzip, zstd or plain text"):
        read(write(tmp_path / "a.txt", b"\xfd7zXZ\0\0\0"))


@given(
    st.text(alphabet="aé漢\n ", max_size=60),
    st.sampled_from([b"\xff", b"\xc0\xaf", b"\xed\xa0\x80", b"\xe9 ", b"\xf0\x9f"]),
)
@settings(max_examples=200, deadline=None)
def test_bytes_that_are_not_utf8_are_placed_exactly(
    tmp_path_factory: pytest.TempPathFactory, text: str, bad: bytes
) -> None:
    content = b"ok " + text.encode()
    path = write(tmp_path_factory.mktemp("bad") / "a.txt", content + bad)
    place = f"a.txt, line {content.count(10) + 1}, byte {len(content)}: 0x{bad[0]:02x} is not UTF-8"
    with pytest.raises(CorpusError, match=place) as raised:
        read(path)
    assert "--errors replace" in str(raised.value)
    assert "\ufffd" in read(path, errors="replace", documents="file")[0]


def test_a_bad_byte_far_into_a_file_or_across_blocks_is_placed_exactly(tmp_path: Path) -> None:
    line = b"0123456789" * 10 + b"\n"
    content = line * 30_000 + "é".encode()[:1]
    with pytest.raises(CorpusError, match=f"line 30001, byte {30_000 * len(line)}: 0xc3"):
        read(write(tmp_path / "a.txt", content))
    shifted = b"x" * ((1 << 20) - 1) + "é\n".encode() + b"y\xff"
    with pytest.raises(CorpusError, match=f"line 2, byte {len(shifted) - 1}: 0xff"):
        read(write(tmp_path / "b.txt", shifted))
    assert read(write(tmp_path / "c.txt", shifted[:-1]))[0].endswith("é\ny")


def test_replaced_bytes_are_counted_in_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(write(tmp_path / "a.txt", b"a\xffb c\xfe"), errors="replace") == ["a\ufffdb c\ufffd"]
    assert capsys.readouterr().err.startswith("warning: replaced 2 stretches of bytes")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
def test_other_unicode_encodings_are_named(tmp_path: Path, encoding: str) -> None:
    with pytest.raises(CorpusError, match=f"is {encoding.upper()}; convert it first: iconv -f {encoding.upper()}"):
        read(write(tmp_path / "a.txt", TEXT.encode(encoding)))
    with pytest.raises(CorpusError, match="is no text: .* bytes are zero"):
        read(write(tmp_path / "a.txt", (TEXT * 4).encode(f"{encoding}-le")))


def test_windows_and_unix_line_ends_and_a_byte_order_mark_give_the_same_text(tmp_path: Path) -> None:
    windows = "\ufeff" + TEXT.replace("\n", "\r\n")
    assert read(write(tmp_path / "a.txt", windows)) == DOCUMENTS
    assert read(write(tmp_path / "b.txt", TEXT.removesuffix("\n"))) == DOCUMENTS
    lines = "0123456\n" * (1 << 17)  # one block, whose last byte becomes a CR with its LF in the next
    across = lines[:-1] + "\r\n\r\nsecond\rword\r"
    assert read(write(tmp_path / "c.txt", across)) == [lines[:-1], "second word"]
    assert read(write(tmp_path / "d.txt", lines[:-1] + "\rword")) == [lines[:-1] + " word"]


def test_control_characters_are_removed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert read(write(tmp_path / "a.txt", b"nu\0ll\x01 t\tab v\x0bt f\x0cf d\x7fel\n")) == ["null t\tab v t f f del"]
    assert "warning: removed 3 control characters (first in" in capsys.readouterr().err
    assert read(write(tmp_path / "a.jsonl", json.dumps({"text": "nu\0ll\r\nx"}))) == ["null\nx"]


def test_a_warning_is_said_once_however_often_a_corpus_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.txt", b"nu\0ll")
    assert read(path) == read(path)
    assert capsys.readouterr().err.count("warning: ") == 1


def test_other_line_separators_are_text(tmp_path: Path) -> None:
    assert read(write(tmp_path / "a.txt", "a\u2028b\x85c\u2029d")) == ["a\u2028b\x85c\u2029d"]


def test_a_long_line_is_cut_at_spaces_without_losing_a_word(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [f"word{n}" for n in range(600_000)]
    pieces = "\n".join(read(write(tmp_path / "a.txt", " ".join(words)))).split("\n")
    assert max(map(len, pieces)) <= MAX_LINE_CHARACTERS
    assert " ".join(pieces).split() == words
    assert "cut a line of more than 1,000,000 characters" in capsys.readouterr().err
    unbroken = read(write(tmp_path / "b.txt", "x" * 2_500_000), documents="line")
    assert [len(piece) for piece in unbroken] == [1_000_000, 1_000_000, 500_000]


def test_a_document_without_end_is_cut_between_lines(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    documents = read(write(tmp_path / "a.txt", ("y" * 99 + "\n") * 250_000))
    assert [len(document.split("\n")) for document in documents] == [100_000, 100_000, 50_000]
    assert max(map(len, documents)) <= MAX_DOCUMENT_CHARACTERS
    assert "cut a document" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["one_line", "many_lines", "no_blank_lines"])
def test_memory_stays_bounded_whatever_the_size(tmp_path: Path, kind: str) -> None:
    line = {"one_line": b"some words ", "many_lines": b"some words\n\n", "no_blank_lines": b"some words\n"}[kind]
    with open(tmp_path / "big.txt", "wb") as file:
        for _ in range(100 if kind == "one_line" else 40):
            file.write(line * (1_000_000 // len(line)))
    script = (
        "import resource, sys\n"
        "from corpora.sources import TextSource, read_documents\n"
        "peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "before = peak()\n"
        "for _ in read_documents(TextSource(location=sys.argv[1])): pass\n"
        "print(peak() - before)\n"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "big.txt")]
    result = subprocess.run(command, capture_output=True, text=True, check=True, cwd=Path(__file__).parents[1])
    assert int(result.stdout) < 80_000  # kilobytes


def test_folders_are_read_in_order_without_hidden_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ["b.txt", "a/z.txt", "a/b/c.txt", "a.txt", ".hidden.txt", ".git/x.txt", "a/.b/x.txt"]:
        write(tmp_path / "corpus" / name, f"Text of {name}.")
    names = ["a.txt", "a/b/c.txt", "a/z.txt", "b.txt"]
    source = TextSource(location=str(tmp_path / "corpus"))
    assert [str(path.relative_to(tmp_path / "corpus")) for path in list_files(source)] == names
    assert list(read_documents(source)) == [f"Text of {name}." for name in names]
    walk = os.walk
    monkeypatch.setattr(os, "walk", lambda *a, **k: ((p, d, f[::-1]) for p, d, f in walk(*a, **k)))
    assert list(read_documents(source)) == [f"Text of {name}." for name in names]


def test_globs_match_files_and_folders_once_each(tmp_path: Path) -> None:
    for name in ["a1.txt", "a2.txt", "b.txt", "a3/c.txt"]:
        write(tmp_path / name, f"Text of {name}.")
    assert read(tmp_path / "a*") == ["Text of a1.txt.", "Text of a2.txt.", "Text of a3/c.txt."]
    assert len(read(tmp_path / "**" / "*.txt")) == 4
    write(tmp_path / "odd[1].txt", "A name like a glob.")
    assert read(tmp_path / "odd[1].txt") == ["A name like a glob."]


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    write(tmp_path / "outside" / "x.txt", "Linked.")
    write(tmp_path / "corpus" / "a.txt", "Here.")
    (tmp_path / "corpus" / "link").symlink_to(tmp_path / "outside")
    (tmp_path / "corpus" / "loop").symlink_to(tmp_path / "corpus")
    assert read(tmp_path / "corpus") == ["Here.", "Linked."]


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "corpus" / "a.txt", "Here.")
    os.mkfifo(tmp_path / "corpus" / "pipe")
    with pytest.raises(CorpusError, match="pipe is no regular file"):
        read(tmp_path / "corpus")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "gone.txt").symlink_to(tmp_path / "nowhere")
    with pytest.raises(CorpusError, match="gone.txt is no regular file"):
        read(tmp_path / "broken")


def test_one_empty_file_is_a_warning_and_nothing_but_empty_files_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "a.txt", "")
    write(tmp_path / "b.txt", " \n\n\t\n")
    with pytest.raises(CorpusError, match="no text in .*: everything in it is empty or blank"):
        read(tmp_path)
    write(tmp_path / "c.txt", "Text.")
    assert read(tmp_path) == ["Text."]
    assert "warning: 2 files hold no text (first in" in capsys.readouterr().err
    with pytest.raises(CorpusError, match="folder .* holds no files"):
        read(write(tmp_path / "empty" / ".hidden", "x").parent)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "cut', "broken JSON"),
        ("[1, 2]", "holds list, not an object"),
        ('{"body": "x", "id": 1}', "has no column 'text'; set text_column to one of: body, id"),
        ('{"text": null}', "'text' holds NoneType, not text"),
        ('{"text": 3}', "'text' holds int, not text"),
        ('{"text": "\\ud800"}', "half of a surrogate pair"),
        ("[" * 100_000, "broken JSON"),
    ],
)
def test_broken_json_lines_name_file_line_and_reason(tmp_path: Path, line: str, message: str) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "Good."}\n\n' + line + "\n")
    with pytest.raises(CorpusError, match="a.jsonl, line 3") as raised:
        read(path)
    assert message in str(raised.value)


@given(
    st.lists(
        st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\ufeff"), max_size=30), max_size=8
    )
)
@settings(max_examples=100, deadline=None)
def test_text_in_json_comes_out_as_it_went_in(tmp_path_factory: pytest.TempPathFactory, texts: list[str]) -> None:
    texts = [*texts, "Last."]
    lines = [json.dumps({"text": text}, ensure_ascii=len(text) % 2 == 0) for text in texts]
    path = write(tmp_path_factory.mktemp("json") / "a.jsonl", "\n".join(lines))
    assert read(path) == [text for text in texts if text and not text.isspace()]


def test_half_a_surrogate_pair_is_replaced_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", '{"text": "a \\ud800 b \\ud83d\\ude00"}')
    assert read(path, errors="replace") == ["a \ufffd b \U0001f600"]


def test_broken_parquet_names_file_and_reason(tmp_path: Path) -> None:
    pq.write_table(pa.table({"body": ["x"], "id": [1]}), tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="a.parquet has no column 'text'; set text_column to one of: body, id"):
        read(tmp_path / "a.parquet")
    with pytest.raises(CorpusError, match="column 'id' holds int64, not text; columns: body, id"):
        read(tmp_path / "a.parquet", text_column="id")
    pq.write_table(pa.table({"text": ["x", None]}), tmp_path / "null.parquet")
    with pytest.raises(CorpusError, match="null.parquet, row 2: column 'text' holds null"):
        read(tmp_path / "null.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    for length in range(4, len(whole), 7):
        with pytest.raises(CorpusError, match="cut.parquet is no whole Parquet file"):
            read(write(tmp_path / "cut.parquet", whole[:length]))
    with pytest.raises(CorpusError, match="is no Parquet file: it does not begin with PAR1"):
        read(write(tmp_path / "text.parquet", "Text."))


def test_a_damaged_page_of_parquet_is_an_error(tmp_path: Path) -> None:
    texts = noise(20_000).decode().split("\n")
    table = pa.table({"text": texts})
    pq.write_table(table, tmp_path / "a.parquet", compression="none", use_dictionary=False, write_page_checksum=True)
    content = bytearray((tmp_path / "a.parquet").read_bytes())
    content[content.index(b" ", len(content) // 2)] = ord("!")  # still text: only the checksum can tell
    with pytest.raises(CorpusError, match="b.parquet is damaged after row"):
        read(write(tmp_path / "b.parquet", bytes(content)))


def test_a_file_that_is_missing_suggests_the_nearest_name(tmp_path: Path) -> None:
    write(tmp_path / "wiki.txt.gz", gzip.compress(b"Text."))
    with pytest.raises(CorpusError, match="there is no file or folder .*wiki.txt.*; did you mean .*wiki.txt.gz"):
        read(tmp_path / "wiki.txt")
    with pytest.raises(CorpusError, match="no file matches the glob"):
        read(tmp_path / "*.jsonl")


def test_an_unknown_name_without_a_network_is_one_line_that_says_all_that_was_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise socket.gaierror("no network")

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for variable in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "wikis" / "a.txt", "Text.")
    with pytest.raises(CorpusError) as raised:
        read("wiki")
    message = str(raised.value)
    assert (
        "no file or folder 'wiki', and `datasets` cannot load 'wiki' (" in message
        and "did you mean 'wikis'?" in message
    )
    assert "\n" not in message
    assert capfd.readouterr().err == ""


def test_a_dataset_is_loaded_by_name_config_and_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    records = "".join(
        json.dumps({"body": text, "id": n}) + "\n" for n, text in enumerate(["One.\r\nTwo.", "", "Three."])
    )
    write(tmp_path / "set" / "train.jsonl", records)
    write(tmp_path / "set" / "test.jsonl", json.dumps({"body": "Four.", "id": 3}))
    name = f"{tmp_path / 'set'}:default"
    assert read(name, text_column="body") == ["One.\nTwo.", "Three."]
    assert read(f"{name}:test", text_column="body") == ["Four."]
    with pytest.raises(CorpusError, match="has no column 'text'; set text_column to one of: body, id"):
        read(name)
    with pytest.raises(CorpusError, match="row 1: column 'id' holds int, not text"):
        read(name, text_column="id")
    with pytest.raises(CorpusError, match="cannot load .*:nothing"):
        read(f"{name}:nothing", text_column="body")
    prints = {fingerprint_source(TextSource(location=f"{name}{end}", text_column="body")) for end in ("", ":test")}
    assert len(prints) == 2
    assert hub.fingerprint(name) == hub.load(name)._fingerprint


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("wikitext", True),
        ("Salesforce/wikitext:wikitext-2-raw-v1", True),
        ("wiki:en:train", True),
        ("wiki.txt", False),
        ("data/wiki.jsonl.gz", False),
        ("/data/wiki", False),
        ("./wiki", False),
        ("a/b/c", False),
        ("~/wiki", False),
    ],
)
def test_only_what_can_be_a_name_is_looked_up(location: str, expected: bool) -> None:
    assert hub.may_be_dataset(location) == expected


def test_fingerprints_follow_content_names_and_settings_but_not_the_place(tmp_path: Path) -> None:
    for place in ("here", "there"):
        write(tmp_path / place / "a.txt", "One.")
        write(tmp_path / place / "b" / "c.txt", "Two.")
    here = TextSource(location=str(tmp_path / "here"))
    first = fingerprint_source(here)
    assert len(first) == 64 and first == fingerprint_source(TextSource(location=str(tmp_path / "there")))
    changed = [
        TextSource(location=here.location, documents="line"),
        TextSource(location=here.location, text_column="body"),
        TextSource(location=here.location, errors="replace"),
        TextSource(location=str(tmp_path / "here" / "a.txt")),
    ]
    prints = {first, *map(fingerprint_source, changed)}
    write(tmp_path / "here" / "a.txt", "One!")
    prints.add(fingerprint_source(here))
    (tmp_path / "there" / "a.txt").rename(tmp_path / "there" / "z.txt")
    prints.add(fingerprint_source(TextSource(location=str(tmp_path / "there"))))
    assert len(prints) == 7


@pytest.mark.parametrize("option", [{"documents": "paragraph"}, {"errors": "ignore"}])
def test_an_unknown_setting_names_those_that_are_known(option: dict[str, str]) -> None:
    with pytest.raises(CorpusError, match="is unknown; known: "):
        TextSource(**option)


def test_a_file_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.txt", "Text.")

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("corpora.compression.open", refuse, raising=False)
    with pytest.raises(CorpusError, match=r"a\.txt cannot be read: Permission denied"):
        read(path)
    monkeypatch.setattr("corpora.sources.open", refuse, raising=False)
    with pytest.raises(CorpusError, match=r"a\.txt cannot be read: Permission denied$"):
        fingerprint_source(TextSource(location=str(path)))
