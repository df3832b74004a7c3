"""What a user can get wrong, end to end: one line that says what, where and what would do, and nothing lost."""

import errno
import gzip
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest
import safetensors.torch
from transformers import PreTrainedTokenizerFast

import pretrain
from corpora.errors import CorpusError
from objectives import OBJECTIVES
from tests.small_runs import write_text
from training import checkpoint, loop, setup

ROOT = Path(pretrain.__file__).parent
SETTINGS = (
    "--encoder tiny --vocab_size 200 --held_out_rate 0.2 --max_length 32 --batch_size 8 --micro_batch_size 4 "
    "--max_steps 4 --log_every 1 --eval_every 4 --eval_examples 16 --save_every 2 --mixed_precision no --threads 1"
).split()
MEMORY_BOUND = 200_000_000
SPECIALS = {"pad": "[PAD]", "unk": "[UNK]", "cls": "[CLS]", "sep": "[SEP]", "mask": "[MASK]"}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a text, its prepared corpus and a finished run; tests leave it as it is."""
    folder = tmp_path_factory.mktemp("trained")
    write_text(folder / "text.txt")
    assert pretrain.main(command(folder, "--corpus", folder / "text.txt")) == 0
    return folder


@pytest.fixture
def text(tmp_path):
    return write_text(tmp_path / "text.txt")


def command(folder, *more):
    return [*SETTINGS, "--cache", str(folder / "cache"), "--out", str(folder / "run"), *map(str, more)]


def succeeds(capsys, argv):
    """Return what a run says that ends well."""
    capsys.readouterr()
    assert pretrain.main([str(word) for word in argv]) == 0
    said = capsys.readouterr().err
    assert "error: " not in said
    return said


def fails(capsys, argv, code=2):
    """Return the one line, the last, with which a run ends that can't be."""
    capsys.readouterr()
    assert pretrain.main([str(word) for word in argv]) == code
    said = capsys.readouterr()
    assert said.out == "" and "Traceback" not in said.err
    errors = [line for line in said.err.splitlines() if line.startswith("error: ")]
    assert errors == said.err.splitlines()[-1:] and len(errors) == 1
    return errors[0]


def snapshot(folder):
    """Return every file below a folder with its bytes; a lock's file only says who was there last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def copy_run(trained, tmp_path):
    return shutil.copytree(trained / "run", tmp_path / "run")


# The corpus


def test_a_missing_file_is_named_with_the_nearest_one(tmp_path, text, capsys):
    line = fails(capsys, command(tmp_path, "--corpus", tmp_path / "texd.txt"))
    assert re.search(r"no file .*texd\.txt'; did you mean '.*text\.txt'", line)


def test_a_start_that_failed_can_be_given_again(tmp_path, text, capsys):
    fails(capsys, command(tmp_path, "--corpus", tmp_path / "texd.txt", "--out", tmp_path / "runs" / "deep"))
    assert not (tmp_path / "runs").exists()
    succeeds(capsys, command(tmp_path, "--corpus", text, "--out", tmp_path / "runs" / "deep"))


def test_a_start_that_failed_leaves_an_empty_folder_empty(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    fails(capsys, command(tmp_path, "--corpus", tmp_path / "texd.txt"))
    assert list((tmp_path / "run").iterdir()) == []


def test_the_lock_of_a_killed_start_is_no_obstacle(tmp_path, text, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / checkpoint.LOCK).write_text("1 elsewhere\n")
    succeeds(capsys, command(tmp_path, "--corpus", text))


def test_a_folder_that_another_run_gave_up_while_we_locked_it_is_not_used(tmp_path, text, capsys, monkeypatch):
    lock = checkpoint._lock

    def give_up_first(descriptor, folder):
        (folder / checkpoint.LOCK).unlink()
        lock(descriptor, folder)

    monkeypatch.setattr(checkpoint, "_lock", give_up_first)
    assert "start again" in fails(capsys, command(tmp_path, "--corpus", text))


@pytest.mark.parametrize("content", ["", " \n\n\t\n"])
def test_an_empty_file_is_refused(tmp_path, capsys, content):
    (tmp_path / "empty.txt").write_text(content)
    assert "empty.txt" in fails(capsys, command(tmp_path, "--corpus", tmp_path / "empty.txt"))
    assert not (tmp_path / "run").exists()


def test_bytes_that_are_not_utf8_are_told_by_offset_and_replaced_on_request(tmp_path, text, capsys):
    content = text.read_bytes()
    text.write_bytes(content[:1000] + b"\xe9" + content[1000:])
    line = fails(capsys, command(tmp_path, "--corpus", text))
    assert re.search(r"text\.txt, line \d+, byte 1000: 0xe9 is not UTF-8 .*--errors replace", line)
    assert "replaced 1 " in succeeds(capsys, command(tmp_path, "--corpus", text, "--errors", "replace"))


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_truncated_file_is_refused_wherever_it_is_cut(tmp_path, text, capsys, suffix):
    content = text.read_bytes()
    whole = gzip.compress(content) if suffix == ".gz" else pa.compress(content, "zstd", asbytes=True)
    path = tmp_path / f"text.txt{suffix}"
    for end in (3, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:end])
        assert re.search(rf"text\.txt\{suffix} is truncated", fails(capsys, command(tmp_path, "--corpus", path)))
    path.write_bytes(whole)
    succeeds(capsys, command(tmp_path, "--corpus", path))


def test_a_few_nuls_are_removed_and_counted(tmp_path, text, capsys):
    text.write_bytes(text.read_bytes().replace(b".", b"\0.", 50))
    assert "removed 50 control characters" in succeeds(capsys, command(tmp_path, "--corpus", text))


def test_a_file_of_nuls_is_no_text(tmp_path, capsys):
    (tmp_path / "zeros.txt").write_bytes(bytes(100_000))
    assert "zeros.txt is no text" in fails(capsys, command(tmp_path, "--corpus", tmp_path / "zeros.txt"))


@pytest.mark.slow
def test_a_long_line_is_cut_and_counted(tmp_path, capsys):
    (tmp_path / "long.txt").write_text("barol demanto felei gish. " * (3_000_000 // 26))
    said = succeeds(capsys, command(tmp_path, "--corpus", tmp_path / "long.txt"))
    assert re.search(r"cut a line of more than 1,000,000 characters \d+ times \(first in .*long\.txt\)", said)


@pytest.mark.slow
def test_a_line_of_100_mb_takes_little_more_memory_than_as_much_in_short_lines(tmp_path):
    code = """
import resource, sys, pretrain
status = pretrain.main(sys.argv[1:])
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
sys.exit(status)
"""
    sentence = " ".join(word * 8 for word in ("Barol", "deman", "felei", "gishu", "kuden")) + "."
    peaks = []
    for end in ("\n", " "):
        path = tmp_path / "text.txt"
        path.write_text((sentence + end) * (100_000_000 // len(sentence + end)))
        argv = command(tmp_path, "--corpus", path, "--out", tmp_path / f"run-{len(peaks)}", "--held_out_rate", 0)
        done = subprocess.run([sys.executable, "-c", code, *argv], cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert ("cut a line" in done.stderr) == (end == " ")
        peaks.append(int(done.stdout) * 1024)
    assert peaks[1] - peaks[0] < MEMORY_BOUND


@pytest.mark.parametrize("objective", ["nsp", "sentence_shuffle", "mlm+nsp", "rtd+sentence_shuffle"])
def test_documents_of_one_sentence_are_refused_where_nothing_else_is_left(tmp_path, capsys, objective):
    path = tmp_path / "single.txt"
    path.write_text("\n\n".join(f"Document number {number} has one sentence." for number in range(100)))
    line = fails(capsys, command(tmp_path, "--corpus", path, "--objective", objective))
    assert re.search(r"none of the \d+ training passages can carry .*sentence", line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("objective", ["nsp", "sentence_shuffle", "mlm+nsp"])
def test_documents_of_one_sentence_are_skipped_and_counted(tmp_path, text, capsys, objective):
    singles = "\n\n".join(f"Document number {number} has one sentence." for number in range(100))
    text.write_text(f"{text.read_text()}\n\n{singles}")
    argv = command(tmp_path, "--corpus", text, "--objective", objective, "--held_out_rate", 0)
    first = succeeds(capsys, argv).splitlines()[0]
    skipped, every = re.fullmatch(r"(\d+) of (\d+) training passages are skipped: .* needs .*", first).groups()
    assert 100 <= int(skipped) < int(every)


def test_nothing_is_said_of_skipping_where_nothing_is_skipped(tmp_path, text, capsys):
    assert "skipped" not in succeeds(capsys, command(tmp_path, "--corpus", text))


def test_a_corpus_smaller_than_a_batch_is_refused_with_the_batch_that_fits(tmp_path, capsys):
    path = tmp_path / "small.txt"
    path.write_text("Barol demanto. Felei gish.\n\nKuden sarol. Another one.\n\nOne more. And its end.\n")
    argv = command(tmp_path, "--corpus", path, "--held_out_rate", 0)
    line = fails(capsys, argv)
    assert re.search(r"found 3, --batch_size 8; .*--batch_size 3 or less", line)
    succeeds(capsys, [*argv, "--batch_size", 3])


# The tokenizer and the encoder


@pytest.mark.parametrize("missing", ["mask", "sep", "cls", "pad"])
def test_a_tokenizer_without_a_special_token_is_refused(tmp_path, trained, capsys, missing):
    tokens = {f"{name}_token": token for name, token in SPECIALS.items() if name != missing}
    path = str(trained / "run" / "tokenizer.json")
    PreTrainedTokenizerFast(tokenizer_file=path, **tokens).save_pretrained(tmp_path / "tokenizer")
    corpus = trained / "text.txt"
    line = fails(capsys, command(tmp_path, "--corpus", corpus, "--tokenizer", tmp_path / "tokenizer"))
    assert f"lacks {missing}: add with" in line and not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_vocabulary_larger_than_the_encoder_is_refused(tmp_path, trained, text, capsys):
    larger = command(tmp_path, "--corpus", text, "--vocab_size", 400, "--out", tmp_path / "larger")
    succeeds(capsys, larger)
    argv = command(tmp_path, "--corpus", text, "--encoder", trained / "run")
    line = fails(capsys, [*argv, "--tokenizer", tmp_path / "larger"])
    assert re.search(r"tokenizer has 2\d\d tokens and the encoder '.*' rows for 200; give --tokenizer", line)


@pytest.mark.slow
@pytest.mark.parametrize("part", [".", "heads/mlm"])
def test_an_exported_encoder_goes_on_with_its_own_tokenizer(tmp_path, trained, text, capsys, part):
    """Another text gives another tokenizer of the same size, whose ids would mean other words to this encoder."""
    text.write_text(text.read_text().replace("a", "qa").replace("e", "xez"))
    succeeds(capsys, command(tmp_path, "--corpus", text, "--encoder", trained / "run" / part))
    tokenizers = [(folder / "run" / "tokenizer.json").read_bytes() for folder in (trained, tmp_path)]
    assert tokenizers[0] == tokenizers[1]


def test_an_encoder_without_a_tokenizer_is_refused(tmp_path, trained, capsys):
    encoder = copy_run(trained, tmp_path / "bare")
    for path in encoder.glob("tokenizer*"):
        path.unlink()
    line = fails(capsys, command(tmp_path, "--corpus", trained / "text.txt", "--encoder", encoder))
    assert "has no tokenizer; give --tokenizer" in line


def test_an_encoder_with_damaged_weights_is_refused(tmp_path, trained, capsys):
    encoder = copy_run(trained, tmp_path / "damaged")
    os.truncate(encoder / "model.safetensors", 5000)
    line = fails(capsys, command(tmp_path, "--corpus", trained / "text.txt", "--encoder", encoder))
    assert f"encoder '{encoder}' can't be loaded: " in line


def test_a_model_that_is_no_encoder_is_refused(tmp_path, trained, capsys):
    (tmp_path / "gpt").mkdir()
    (tmp_path / "gpt" / "config.json").write_text('{"model_type": "gpt2", "vocab_size": 50300}')
    argv = command(tmp_path, "--corpus", trained / "text.txt", "--tokenizer", trained / "run")
    assert "gpt2 model, which is no text encoder" in fails(capsys, [*argv, "--encoder", tmp_path / "gpt"])


def test_a_row_longer_than_the_encoders_positions_is_refused(tmp_path, trained, capsys):
    argv = command(tmp_path, "--corpus", trained / "text.txt", "--encoder", trained / "run")
    assert "give --max_length 32 or less" in fails(capsys, [*argv, "--max_length", 64])


def test_a_misspelt_encoder_folder_is_not_looked_for_on_the_hub(tmp_path, trained, capsys, monkeypatch):
    monkeypatch.chdir(trained.parent)
    for name in (trained / "rum", f"./{trained.name}/rum", f"{trained.name}/rum"):
        line = fails(capsys, command(tmp_path, "--corpus", trained / "text.txt", "--encoder", name))
        assert f"there is no encoder folder '{name}'" in line


# Names


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--max_step", "5"], "--max_step is unknown; did you mean --max_steps?"),
        (["--objective", "rdt"], "objective 'rdt' is unknown; did you mean 'rtd'?"),
        (["--encoder", "bert-tinny"], "encoder 'bert-tinny' is unknown; did you mean 'bert-tiny'?"),
    ],
)
def test_an_unknown_name_is_told_with_the_nearest_one(tmp_path, capsys, given, said):
    assert fails(capsys, [*command(tmp_path), *given]).startswith(f"error: {said}")
    assert list(tmp_path.iterdir()) == []


# The run's folder


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path, text, capsys):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert "is not empty (it is not a run's); give --out" in fails(capsys, command(tmp_path, "--corpus", text))
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]


def test_a_folder_with_a_run_in_it_is_left_alone(trained, capsys):
    before = snapshot(trained / "run")
    line = fails(capsys, command(trained, "--corpus", trained / "text.txt"))
    assert f"python pretrain.py --resume {trained / 'run'} goes on with it" in line
    assert snapshot(trained / "run") == before


@pytest.mark.parametrize("given", [["--batch_size", "16"], ["--objective", "rtd"], ["--seed", "3"]])
def test_a_run_is_not_resumed_under_another_configuration(trained, capsys, given):
    before = snapshot(trained / "run")
    line = fails(capsys, ["--resume", trained / "run", *given])
    assert f"can't change {given[0][2:]}: " in line and "a new --out starts another run" in line
    assert snapshot(trained / "run") == before


@pytest.mark.parametrize("place", ["file", "file/run", "link"])
def test_a_run_is_not_put_where_no_folder_can_be(tmp_path, text, capsys, place):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    line = fails(capsys, command(tmp_path, "--corpus", text, "--out", tmp_path / place))
    assert "can't be made" in line and (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("option", ["--out", "--cache"])
def test_nothing_is_written_into_the_corpus(tmp_path, text, capsys, option):
    """The first run would pass; but then its own files are text, and it can't be resumed."""
    (tmp_path / "texts").mkdir()
    shutil.move(text, tmp_path / "texts")
    place = tmp_path / "texts" / "more"
    assert f"{option} {place} is inside the corpus" in fails(
        capsys, command(tmp_path, "--corpus", tmp_path / "texts", option, place)
    )
    assert list((tmp_path / "texts").iterdir()) == [tmp_path / "texts" / "text.txt"]


@pytest.mark.parametrize("cache", ["text.txt", "text.txt/below"])
def test_a_cache_that_cant_be_written_is_told(tmp_path, text, capsys, cache):
    line = fails(capsys, command(tmp_path, "--corpus", text, "--cache", tmp_path / cache), code=4)
    assert "cannot write prepared corpora" in line and "--cache" in line and not (tmp_path / "run").exists()


def test_two_runs_are_not_in_one_folder(trained, tmp_path, capsys):
    folder = copy_run(trained, tmp_path)
    with checkpoint.lock_run(folder):
        line = fails(capsys, ["--resume", folder])
    assert f"in use by process {os.getpid()}" in line


@pytest.mark.parametrize("record", ["{broken", "[]", '{"config": {}}', '{"config": {"max_steps": 4}, "max_steps": 4}'])
def test_a_run_whose_record_is_damaged_is_not_resumed(trained, tmp_path, capsys, record):
    folder = copy_run(trained, tmp_path)
    (folder / "run.json").write_text(record)
    assert "run.json" in fails(capsys, ["--resume", folder]) and (folder / "run.json").read_text() == record


@pytest.mark.slow
def test_a_run_whose_corpus_is_gone_or_changed_is_not_resumed_and_goes_on_when_it_is_back(tmp_path, text, capsys):
    succeeds(capsys, command(tmp_path, "--corpus", text))
    content = text.read_text()
    before = snapshot(tmp_path / "run")
    text.rename(tmp_path / "other.md")
    assert "text.txt" in fails(capsys, ["--resume", tmp_path / "run"])
    text.write_text(content.replace("Bar", "Tar"))
    assert "the corpus has changed" in fails(capsys, ["--resume", tmp_path / "run"])
    assert snapshot(tmp_path / "run") == before
    text.write_text(content)
    assert "after step 4 of 4" in succeeds(capsys, ["--resume", tmp_path / "run"])


@pytest.mark.slow
def test_paths_may_be_relative_with_spaces_quotes_and_brackets(tmp_path, text, capsys, monkeypatch):
    (tmp_path / "it's here").mkdir()
    text.rename(tmp_path / "it's here" / 'a [b] "c" *.txt')
    monkeypatch.chdir(tmp_path / "it's here")
    argv = [*SETTINGS, "--cache", "../cache", "--corpus", 'a [b] "c" *.txt', "--out", "../my runs/#1"]
    succeeds(capsys, argv)
    succeeds(capsys, ["--resume", "../my runs/#1/"])
    assert "--resume '../my runs/#1' goes on" in fails(capsys, argv)


def test_line_ends_of_windows_change_nothing(tmp_path, text, trained, capsys):
    text.write_bytes(text.read_bytes().replace(b"\n", b"\r\n"))
    succeeds(capsys, command(tmp_path, "--corpus", text))
    ours, theirs = ((folder / "run" / "model.safetensors").read_bytes() for folder in (tmp_path, trained))
    assert ours == theirs


@pytest.mark.parametrize("given", [["--max_length", 8], ["--batch_size", 1, "--objective", "mlm+nsp"]])
def test_the_smallest_settings_work(tmp_path, trained, capsys, given):
    succeeds(capsys, command(tmp_path, "--corpus", trained / "text.txt", *given))


# Checkpoints


def test_a_flipped_byte_falls_back_to_the_older_checkpoint(trained, tmp_path, capsys):
    folder = copy_run(trained, tmp_path)
    flip(folder / "checkpoints" / "step-00000004" / "model.safetensors")
    said = succeeds(capsys, ["--resume", folder])
    assert re.search(r"warning: .*step-00000004: 'model.safetensors' differs .*falling back to step-00000002", said)
    assert "after step 2 of 4" in said
    assert snapshot(folder)["model.safetensors"] == snapshot(trained / "run")["model.safetensors"]


def test_with_every_checkpoint_broken_nothing_is_trained(trained, tmp_path, capsys):
    folder = copy_run(trained, tmp_path)
    for path in (folder / "checkpoints").glob("*/state.json"):
        flip(path)
    before = snapshot(folder)
    line = fails(capsys, ["--resume", folder])
    assert re.search("no checkpoint in .* can be used: .*step-00000004.*step-00000002.*; restore one", line)
    assert snapshot(folder) == before


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 4])
def test_a_full_disk_ends_the_run_and_keeps_the_earlier_checkpoint(tmp_path, text, capsys, monkeypatch, step):
    save = safetensors.torch.save_file

    def save_file(tensors, path):
        if f"step-{step:08d}" in names[-1]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        save(tensors, path)

    publish, names = checkpoint.publish_folder, []

    def publish_folder(final, write):
        names.append(final.name)
        publish(final, write)

    monkeypatch.setattr(checkpoint, "publish_folder", publish_folder)
    monkeypatch.setattr(checkpoint.safetensors.torch, "save_file", save_file)
    line = fails(capsys, command(tmp_path, "--corpus", text), code=4)
    assert re.search(rf"cannot write .*step-{step:08d}: No space left .*bytes free.*; make room", line)
    found = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert found == (["step-00000002"] if step == 4 else [])
    monkeypatch.undo()
    assert "step 4/4" in succeeds(capsys, ["--resume", tmp_path / "run"])


def test_a_disk_that_is_full_from_the_start_leaves_nothing(tmp_path, text, capsys, monkeypatch):
    replace = os.replace

    def refuse(source, target):
        if Path(target).name == "run.json":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        replace(source, target)

    monkeypatch.setattr(os, "replace", refuse)
    assert "run.json: No space left" in fails(capsys, command(tmp_path, "--corpus", text), code=4)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs Linux")
def test_a_log_that_cant_be_written_ends_the_run(tmp_path, text, capsys, monkeypatch):
    def evaluate(run):
        run.folder.joinpath("metrics.jsonl").unlink()
        run.folder.joinpath("metrics.jsonl").symlink_to("/dev/full")
        return {"mlm": {"loss": 1.0}}

    monkeypatch.setattr(loop, "evaluate", evaluate)
    assert "metrics.jsonl: No space left" in fails(capsys, command(tmp_path, "--corpus", text), code=4)


# Interruptions


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path, text, trained, capsys, monkeypatch, workers):
    taken = loop.take_step

    def take_step(run, batches, received):
        if run.step == 2:
            os.kill(os.getpid(), signal.SIGINT)
        return taken(run, batches, received)

    monkeypatch.setattr(loop, "take_step", take_step)
    line = fails(capsys, command(tmp_path, "--corpus", text, "--workers", workers, "--max_steps", 8), code=130)
    assert re.search(rf"stopped by SIGINT after step 4 of 8, .*--resume {tmp_path}", line)
    monkeypatch.undo()
    assert "after step 4 of 8" in succeeds(capsys, ["--resume", tmp_path / "run"])


def test_ctrl_c_before_training_leaves_nothing(tmp_path, text, capsys, monkeypatch):
    def prepare_corpus(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup, "prepare_corpus", prepare_corpus)
    assert pretrain.main(command(tmp_path, "--corpus", text)) == 130
    assert capsys.readouterr().err == "interrupted\n" and not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_whole_group_ends_the_run_as_one_to_the_main_process(tmp_path, text, number):
    """A terminal's Ctrl-C, and `kill` of a job, reach the workers too; the step still needs their batches."""
    argv = command(tmp_path, "--corpus", text, "--workers", 2, "--max_steps", 5000, "--save_every", 5000)
    with subprocess.Popen(
        [sys.executable, "pretrain.py", *argv], cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        for line in process.stderr:
            if line.startswith("step 3/"):
                break
        os.killpg(process.pid, number)
        said = process.stderr.read()
    assert process.returncode == 128 + number
    assert said.count("stopping after this step") == 1 and "Traceback" not in said
    assert re.fullmatch(r"error: stopped by SIG\w+ after step \d+ of 5,000, .*", said.splitlines()[-1])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_mistake_that_a_worker_finds_is_one_line_too(tmp_path, text, capsys, monkeypatch, workers):
    def corrupt(*_):
        raise CorpusError("document 3 is odd: mend it")

    monkeypatch.setattr(OBJECTIVES["mlm"], "corrupt", corrupt)
    line = fails(capsys, command(tmp_path, "--corpus", text, "--workers", workers))
    assert line == "error: document 3 is odd: mend it"
