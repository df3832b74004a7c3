"""The arithmetic of the benchmarks, and that each of them runs at a tiny size."""

import argparse
import importlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import children, interleaved, learning, scaling, stock, table
from benchmarks.interleaved import Row, Series, ratio_of_medians, take_turns
from benchmarks.runs import STOCK_MASKING
from tests.small_runs import make_config, make_run, write_text

TINY = {
    "step": ["--only", "tiny-30k-fp32-0.1", "--max_length", "16"],
    "masking": ["--rows", "4", "--max_length", "16"],
    "collate": ["--rows", "4", "--max_length", "16", "--batches", "2"],
    "tokenise": ["--characters", "2000", "--vocab_size", "200", "--max_length", "16"],
    "rtd_step": ["--rows", "4", "--max_length", "16", "--encoder", "bert-tiny"],
    "attention": ["--tokens", "64", "--lengths", "16"],
    "padding": ["--rows", "4", "--max_length", "32"],
    "matmul": ["--size", "32"],
    "learning": ["--steps", "2", "--seeds", "1", "--rows", "4", "--max_length", "16", "--eval_examples", "4"],
}
IN_PROCESSES = {
    "whole_process": ["--steps", "2", "--rows", "4", "--max_length", "16", "--characters", "4000"],
    "memory": [
        "--rows",
        "2",
        "--max_length",
        "16",
        "--vocab_sizes",
        "200",
        "--encoder",
        "bert-tiny",
        "--characters",
        "2000",
    ],
    "preparing": ["--characters", "4000", "--vocab_size", "200"],
    "scaling": ["--rows", "2", "--max_length", "16", "--steps", "2", "--vocab_size", "200"],
}


@pytest.fixture(scope="module")
def text(tmp_path_factory):
    return write_text(tmp_path_factory.mktemp("benchmarks") / "text.txt", num_documents=60)


def run_small(name, words, text, path):
    """Run a benchmark on a small text, in this process; return the JSON that it wrote."""
    module = importlib.import_module(f"benchmarks.{name}")
    shared = ["--corpus", str(text), "--cache", str(text.parent / "cache"), "--pairs", "2", "--warm_up", "0"]
    assert module.main([*shared, "--json", str(path), *words]) == 0
    return json.loads(path.read_text())


def test_a_process_finds_the_project_and_files_from_where_one_is(tmp_path, monkeypatch):
    (tmp_path / "text.txt").write_text("read")
    monkeypatch.chdir(tmp_path)
    words = ["-c", "import training; print(open('text.txt').read())"]
    assert children.run_child(words, 1).said == "read"


def test_a_ratio_is_that_of_the_medians_and_its_interval_is_of_pairs():
    ratio = ratio_of_medians([2.0, 4.0, 6.0], [1.0, 2.0, 3.0])
    assert (ratio.value, ratio.low, ratio.high) == (2.0, 2.0, 2.0)  # each pair is 2 to 1, whichever are drawn
    wide = ratio_of_medians([1.0, 1.0, 9.0], [1.0, 1.0, 1.0])
    assert (wide.value, wide.low, wide.high) == (1.0, 1.0, 9.0)
    with pytest.raises(ValueError, match="3 turns against 2"):
        ratio_of_medians([1.0, 2.0, 3.0], [1.0, 2.0])


def test_a_series_tells_its_median_and_the_middle_half():
    series = Series(name="x", values=(1.0, 2.0, 3.0, 4.0, 100.0))
    assert series.median == 3.0
    assert series.spread == pytest.approx(2 / 3)  # quartiles 2 and 4


def test_a_price_is_ours_to_theirs():
    theirs, ours = Series(name="a", values=(1.0,), cpu=(2.0,)), Series(name="b", values=(4.0,), cpu=(2.0,))
    assert Row(what="", theirs=theirs, ours=ours).ratio.value == 0.25
    assert Row(what="", theirs=theirs, ours=ours, inverted=True).ratio.value == 4.0
    assert Row(what="", theirs=theirs, ours=ours).cpu_ratio.value == 1.0
    assert Row(what="", theirs=theirs, ours=Series(name="b", values=(1.0,))).cpu_ratio is None


def test_turns_alternate_and_the_first_are_left_out():
    order = []
    series = take_turns({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, pairs=2, warm_up=1)
    assert order == ["a", "b"] * 3
    assert [(each.name, len(each.values), len(each.cpu)) for each in series] == [("a", 2, 2), ("b", 2, 2)]


def test_short_calls_are_repeated_and_told_for_one(monkeypatch):
    clock = iter(np.arange(0.0, 1000.0, 0.25))
    monkeypatch.setattr(interleaved.time, "perf_counter", lambda: 0.0)
    monkeypatch.setattr(interleaved.time, "process_time", lambda: float(next(clock)))
    calls = []
    (series,) = take_turns({"a": lambda: calls.append(1)}, pairs=1, warm_up=0, least_seconds=1.0)
    assert len(calls) == 2 + 4  # each reading of this clock is a quarter of a second later: four calls fill one
    assert series.cpu == (0.25 / 4,) and series.values == (0.0,)


def test_a_step_costs_compute_and_a_ring():
    costs = scaling.Costs(input=1.0, compute=9.0, gradient_bytes=40.0, bandwidth=8.0)
    assert costs.step_seconds(1, 2) == 20.0
    assert costs.step_seconds(2, 1) == 10.0 + 2 * 0.5 * 40 / 8
    assert costs.efficiency(64, 1) == pytest.approx(10 / (10 + 2 * 63 / 64 * 5))


def test_the_stock_model_is_the_same_model(tmp_path):
    """The same logits from the same weights, and the same weights after going there and back."""
    run = make_run(make_config(tmp_path, encoder="bert-tiny", objective=STOCK_MASKING, dropout=0.1))
    model = stock.make_stock_model(run, "sdpa").eval()
    run.model.eval()
    batch = run.train[0]
    seen = run.model._encode(batch, ["mlm"], None)["mlm"]
    ours = run.model.heads["mlm"].logits(seen.hidden, seen.word_table)
    theirs = model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).logits
    real = batch.attention_mask.bool()
    torch.testing.assert_close(ours[real], theirs[real], rtol=1e-4, atol=1e-5)
    before = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    with torch.no_grad():
        for parameter in run.model.parameters():
            parameter.zero_()
    stock.copy_back(run, model)
    assert all(torch.equal(tensor, before[name]) for name, tensor in run.model.state_dict().items())


def test_both_sides_read_the_same_examples_with_nothing_hidden(tmp_path):
    run = make_run(make_config(tmp_path))
    rows = stock.make_dataset(run.train, 8)
    for number in (0, 1):
        flat = run.train.build(number).sequences
        for place in range(4):
            row = rows[4 * number + place]
            begin, end = flat.offsets[place : place + 2]
            assert row["input_ids"] == flat.original_ids[begin:end].tolist()
            assert row["special_tokens_mask"] == [1, *[0] * (end - begin - 2), 1]


def test_a_process_tells_its_peak_and_its_failure():
    assert children.peak_memory() > 50e6  # torch is loaded
    done = children.run_child(["-c", "print(1); print(2)"], 1)
    assert done.said == "2" and 0 < done.cpu and 0 < done.wall
    with pytest.raises(children.UserError, match="ended with status 1: ZeroDivisionError"):
        children.run_child(["-c", "1 / 0"], 1)


def test_the_table_reads_in_tokens_a_second(capsys):
    row = Row(
        what="step",
        theirs=Series(name="Trainer", values=(2.0, 2.0), cpu=(1.0, 1.0)),
        ours=Series(name="ours", values=(0.5, 0.5), cpu=(0.5, 0.5)),
        tokens=100.0,
        notes={"note": "so"},
    )
    lines = table.format_table(table.Table(title="t", rows=[row], missing=["bf16: none"]), 1, 0.0).splitlines()
    assert [" ".join(line.split()) for line in lines[4:]] == [
        "step (2 pairs)",
        "Trainer 2.00 s IQR 0% 50 tokens/s",
        "ours 500.00 ms IQR 0% 200 tokens/s",
        "ratio, 95 % interval 4.00x [4.00, 4.00] by processor time 2.00x [2.00, 2.00]",
        "note so",
        "not shown: bf16: none",
    ]


@pytest.mark.long
@pytest.mark.parametrize("name", TINY)
def test_each_benchmark_runs(name, text, tmp_path):
    record = run_small(name, TINY[name], text, tmp_path / "table.json")
    assert record["rows"] and record["machine"]["processor"] and record["machine"]["versions"]["torch"]
    for row in record["rows"]:
        assert row["ratio"]["low"] <= row["ratio"]["value"] <= row["ratio"]["high"]
        pairs = 1 if name == "learning" else 2
        assert len(row["theirs"]["values"]) == len(row["ours"]["values"]) == pairs
        above, below = ("ours", "theirs") if "ours /" in row["ratio_is"] else ("theirs", "ours")
        assert row["ratio"]["value"] == pytest.approx(np.median(row[above]["values"]) / np.median(row[below]["values"]))


@pytest.mark.long
@pytest.mark.parametrize("name", IN_PROCESSES)
def test_each_benchmark_of_processes_runs(name, text, tmp_path):
    words = [*IN_PROCESSES[name], "--pairs", "1"]
    record = run_small(name, words, text, tmp_path / "table.json")
    assert all(value > 0 for row in record["rows"] for value in (*row["theirs"]["values"], *row["ours"]["values"]))


def test_nothing_is_hidden_from_the_clock_but_the_warm_up(tmp_path):
    """The Trainer's turns and ours are as many as the steps, less those left out, and both have learned."""
    from benchmarks.step import take_trainer_turns

    run = make_run(make_config(tmp_path, encoder="bert-tiny", objective=STOCK_MASKING, max_steps=3, micro_batch_size=8))
    before = run.model.encoder.get_input_embeddings().weight.detach().clone()
    theirs, ours = take_trainer_turns(run, "sdpa", warm_up=1)
    assert len(theirs.values) == len(ours.values) == 2 and run.step == 3
    assert not torch.equal(run.model.encoder.get_input_embeddings().weight, before)


def test_a_trainer_learns_as_ours_does_where_chance_is_the_same(tmp_path):
    """Without dropout, on the very same masks, both end with the same weights up to rounding."""
    changes = {"encoder": "bert-tiny", "objective": STOCK_MASKING, "micro_batch_size": 8, "max_steps": 4}
    run = make_run(make_config(tmp_path, **changes, warmup_rate=0.0, schedule="linear"))
    copy = stock.make_stock_model(run, "eager")
    batches = []
    for number in range(4):
        batch = run.train[number]
        labels = torch.full_like(batch.input_ids, -100)
        target = batch.targets["mlm"]["original_ids"]
        labels.view(-1)[target.positions] = target.values
        given = {"input_ids": batch.input_ids, "attention_mask": batch.attention_mask, "labels": labels}
        batches += [{name: tensor[row] for name, tensor in given.items()} for row in range(8)]
    trainer = stock.make_trainer(run, copy, stock.make_dataset(run.train, 32), steps=4, folder=tmp_path / "trainer")
    trainer.train_dataset = batches
    trainer.data_collator = lambda rows: {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    trainer.train()
    step = learning.Stepper(run)
    for _ in range(4):
        step()
    ours = {name: tensor.clone() for name, tensor in run.model.state_dict().items()}
    stock.copy_back(run, copy)
    for name, tensor in run.model.state_dict().items():
        torch.testing.assert_close(tensor, ours[name], rtol=1e-3, atol=2e-5)


def test_an_unknown_row_is_refused(text, capsys):
    from benchmarks.step import main

    assert main(["--corpus", str(text), "--only", "huge"]) == 2
    assert "--only huge is none of small-8k-fp32-0.1" in capsys.readouterr().err


def test_what_a_whole_word_is_reaches_the_stock_collator(tmp_path):
    from benchmarks.masking import locate_words

    run = make_run(make_config(tmp_path))
    framed = stock.framed_examples(run.train, np.arange(3))
    for number, located in enumerate(locate_words(framed, 0)):
        begin, end = framed.offsets[number : number + 2]
        offsets = np.array(located["offset_mapping"])[: end - begin]
        joined = np.flatnonzero(offsets[1:, 0] == offsets[:-1, 1]) + 1  # no gap: the same word goes on
        ordinary = np.flatnonzero(~framed.is_word_start[begin:end])
        assert joined.tolist() == [place for place in ordinary.tolist() if place > 0]
        assert len(located["input_ids"]) == len(located["offset_mapping"]) == framed.lengths.max()


def test_options_are_told(capsys):
    parser = table.make_parser("step", "what it does", rows=3)
    assert isinstance(parser, argparse.ArgumentParser)
    shared = {"corpus": "builtin", "cache": None, "json": None, "child": None, "loops": "auto"}
    numbers = {"pairs": 5, "warm_up": 2, "threads": 1, "rows": 4}
    assert vars(parser.read(["--rows", "4"])) == shared | numbers
    assert Path(children.ROOT, "pretrain.py").is_file()


def write_finished(folder, spec, seed, rows, **config):
    """Write what `skill` and `ladder` read of a run."""
    folder = folder / f"{spec.partition(':')[0]}-{seed}-{len(config)}"
    folder.mkdir()
    settings = {"objective": spec, "seed": seed, "encoder": "tiny", "init_range": "width", "embedding_init": "auto"}
    settings |= {"eval_examples": 64}
    (folder / "config.json").write_text('{"hidden_size": 128}')
    record = {"config": settings | config, "chance": {"mlm": {"unigram": 7.0}}}
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "metrics.jsonl").write_text("".join(json.dumps({"split": "held_out"} | row) + "\n" for row in rows))
    return folder


def test_skill_is_nothing_at_chance_and_one_where_nothing_is_wrong(tmp_path, capsys):
    from benchmarks.skill import label_of, main, read_curves, skill_of

    assert skill_of({"auroc": 0.5, "targets": 900}, 64) == (0.0, True)
    assert skill_of({"auroc": 1.0, "targets": 64}, 64) == (1.0, False)
    assert skill_of({"accuracy": 0.5, "majority": 0.5, "targets": 64}, 64) == (0.0, False)
    assert skill_of({"accuracy": 0.85, "majority": 0.7, "targets": 64}, 64)[0] == pytest.approx(0.5)
    assert skill_of({"accuracy": 0.2, "hidden_loss": 5.0}, 64) is None
    assert label_of("sop", {"rtd": None, "sop": {"pooling": "segments"}}) == "sop:pooling=segments (with rtd)"
    spec = "mlm+nsp:pooling=segments"
    folders = [
        write_finished(
            tmp_path,
            spec,
            seed,
            [
                {"step": step, "tokens": step * 100 + seed, "losses": {}, "metrics": {"mlm": {"accuracy": 0.1}} | nsp}
                for step, nsp in (
                    (1, {"nsp": {"accuracy": 0.5, "majority": 0.5, "targets": 64}}),
                    (2, {"nsp": {"accuracy": 0.6 + seed / 10, "majority": 0.5, "targets": 64}}),
                )
            ],
        )
        for seed in range(3)
    ]
    curves = read_curves(folders)
    assert list(curves) == [("nsp:pooling=segments (with mlm)", False)]
    (curve,) = curves.values()
    assert list(curve) == [101, 201]
    np.testing.assert_allclose(curve[201], [0.2, 0.4, 0.6])
    assert main([*map(str, folders), "--out", str(tmp_path / "skill.svg")]) == 0
    assert "201 tokens  skill 0.400  seeds 3" in capsys.readouterr().out
    assert (tmp_path / "skill.svg").read_text().startswith("<?xml")


def test_a_ladder_names_what_runs_differ_in(tmp_path, capsys):
    from benchmarks.ladder import main

    rows = [{"step": 9, "tokens": 900, "losses": {"mlm": 6.5}, "metrics": {"mlm": {"hidden_loss": 6.0}}}]
    folders = [
        write_finished(tmp_path, "mlm", 0, rows),
        write_finished(tmp_path, "mlm", 1, rows, init_range="stock", embedding_init="random", encoder="bert-tiny"),
    ]
    assert main([*map(str, folders), "--out", str(tmp_path / "ladder.svg")]) == 0
    text = capsys.readouterr().out
    assert "tiny, 1/sqrt(width), co-occurrence table             6.000  +1.000 below the word frequencies" in text
    assert "bert-tiny, .02, random table" in text
    other = write_finished(tmp_path, "rtd", 2, [{"step": 9, "tokens": 900, "losses": {}, "metrics": {}}])
    assert main([str(other)]) == 2
    assert "is no finished run of mlm" in capsys.readouterr().err
    (folders[0] / "metrics.jsonl").write_text("")
    assert main([str(folders[0])]) == 2
    assert "has not been evaluated yet" in capsys.readouterr().err
