"""What all commands share: mistakes in one line, exit statuses, times, silence, and how long a row may be."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModel
from transformers.utils import logging

from corpora.console import Parser, check_options, format_seconds, quiet_loading, run_command
from corpora.errors import StorageError, UserError
from corpora.positions import max_positions

ROOT = Path(__file__).parent.parent


def build_parser():
    parser = Parser(prog="it", usage="it FILE [--size INT]", description="Does it.", epilog="x" * 70)
    parser.add_argument("file")
    parser.add_argument("--size", type=int, default=3, help="how much of it " * 8)
    return parser


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["a", "--sise", "4"], "option --sise is unknown; did you mean --size?"),
        (["--xyzzy"], "option --xyzzy is unknown; --help shows every option"),
        (["a", "--siz=4"], "option --siz is unknown; did you mean --size?"),  # no abbreviations
        (["a", "--size", "four"], "argument --size: invalid int value: 'four'; --help shows every option"),
        ([], "the following arguments are required: file; --help shows every option"),
    ],
)
def test_what_cannot_be_understood_is_one_line(argv, said):
    with pytest.raises(UserError) as raised:
        build_parser().read(argv)
    assert str(raised.value) == said


def test_what_follows_a_bare_double_dash_is_text():
    assert build_parser().read(["--size=4", "--", "--sise"]).file == "--sise"
    check_options(["--", "--sise"], ["--size"])


def test_help_fits_80_columns_wherever_it_is_read(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    lines = build_parser().format_help().splitlines()
    assert 70 < max(map(len, lines)) <= 80 and lines[-1] == "x" * 70


def test_a_command_ends_with_its_own_status_or_that_of_what_stopped_it(capsys):
    def fail(error):
        def command(argv):
            raise error

        return command

    assert run_command(lambda argv: len(argv), ["a", "b", "c"]) == 3
    assert run_command(fail(UserError("one\ntwo")), []) == 2
    assert run_command(fail(StorageError("full")), []) == 4
    assert run_command(fail(KeyboardInterrupt()), []) == 130
    assert capsys.readouterr().err == "error: one\nerror: two\nerror: full\nstopped\n"
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_command(lambda argv: 1 // 0, [])


@pytest.mark.slow
def test_a_reader_that_closes_early_is_no_error():
    code = "import sys; from corpora.console import run_command\n"
    code += "sys.exit(run_command(lambda argv: print('x\\n' * 1_000_000) or 5, []))"
    command = [sys.executable, "-c", code]
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdout.close()
    complaint = process.stderr.read()
    process.stderr.close()
    assert (process.wait(timeout=300), complaint) == (0, "")


def test_times_are_minutes_and_seconds_or_hours_too():
    assert [format_seconds(seconds) for seconds in (0, 59.6, 245, 3729)] == ["0:00", "1:00", "4:05", "1:02:09"]


def test_loading_is_quiet_and_the_library_speaks_again_after_it():
    before = logging.get_verbosity(), logging.is_progress_bar_enabled()
    with pytest.raises(UserError), quiet_loading():
        assert logging.get_verbosity() == logging.ERROR and not logging.is_progress_bar_enabled()
        raise UserError
    assert (logging.get_verbosity(), logging.is_progress_bar_enabled()) == before


AFTER_PADDING = ("camembert", "data2vec-text", "ibert", "longformer", "luke", "mpnet", "roberta", "xlm-roberta", "xmod")


@pytest.mark.parametrize("family", ["bert", "electra", *AFTER_PADDING])
def test_a_row_of_as_many_tokens_is_read_and_one_more_is_not(family):
    shape = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    if family == "luke":
        shape |= {"entity_vocab_size": 4, "entity_emb_size": 8}
    if family == "xmod":
        shape |= {"languages": ["en_XX"], "default_language": "en_XX"}
    if family == "longformer":
        shape |= {"attention_window": 4}
    config = CONFIG_MAPPING[family](vocab_size=20, max_position_embeddings=13, pad_token_id=1, **shape)
    length = max_positions(config)
    assert length == (11 if family in AFTER_PADDING else 13)
    torch.manual_seed(0)
    model = AutoModel.from_config(config).eval()
    model(input_ids=torch.full((1, length), 5))
    with pytest.raises((IndexError, RuntimeError)):
        model(input_ids=torch.full((1, length + 1), 5))


@pytest.mark.parametrize("family", ["xlnet", "t5"])  # -1, and nothing
def test_positions_that_are_not_limited_have_no_number(family):
    assert max_positions(CONFIG_MAPPING[family]()) is None
