"""SentEval's and DiscoEval's files, in small."""

import gzip

import numpy as np
import pytest

from corpora.errors import CorpusError, UserError
from probes.probe import DEV, TEST, TRAIN
from probes.published import DISCOEVAL_TASKS, SENTEVAL_TASKS, read_discoeval, read_senteval

LABELS = {  # as they stand in the ten files
    "sentence_length": list("012345"),
    "word_content": ["ability", "worried"],
    "tree_depth": ["10", "11", "12", "5", "6", "7", "8", "9"],
    "top_constituents": ["ADVP_NP_VP_.", "OTHER"],
    "bigram_shift": ["O", "I"],
    "past_present": ["PAST", "PRES"],
    "subj_number": ["NN", "NNS"],
    "obj_number": ["NN", "NNS"],
    "odd_man_out": ["O", "C"],
    "coordination_inversion": ["O", "I"],
}


def write_senteval(folder, task, count=24, **changes):
    """`count` training lines, sorted by label as in the originals, and half as many in the other partitions."""
    lines = []
    for partition, number in (("tr", count), ("va", count // 2), ("te", count // 2)):
        labels = sorted(LABELS[task][i % len(LABELS[task])] for i in range(number))
        lines += [f"{partition}\t{label}\t{partition} no{i} says {label} ." for i, label in enumerate(labels)]
    for number, line in changes.items():
        lines[int(number.removeprefix("line"))] = line
    path = folder / f"{task}.txt"
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize("task", sorted(SENTEVAL_TASKS))
def test_each_of_sentevals_tasks_is_read_with_its_labels_and_partitions(tmp_path, task):
    probe = read_senteval(write_senteval(tmp_path, task))
    assert probe.name == f"senteval_{task}"
    assert np.bincount(probe.split).tolist() == [24, 12, 12]
    assert probe.places.shape == (48, 1, 3) and (probe.places[:, 0, 1:] == -1).all()
    known = SENTEVAL_TASKS[task].labels
    for i in range(48):
        partition, _, _, label, _ = probe.texts[probe.places[i, 0, 0]].split()
        assert probe.label_names[probe.labels[i]] == (known[label] if known else label)
        assert {"tr": TRAIN, "va": DEV, "te": TEST}[partition] == probe.split[i]
    assert probe.surface["words"] == 1.0  # the label stands in the sentence


def test_depths_are_in_order_of_their_value(tmp_path):
    probe = read_senteval(write_senteval(tmp_path, "tree_depth"), surface=False)
    assert probe.label_names == ("5", "6", "7", "8", "9", "10", "11", "12") and probe.surface == {}


def test_partitions_that_are_sorted_by_label_are_shuffled_with_a_fixed_seed(tmp_path):
    path = write_senteval(tmp_path, "bigram_shift", count=200)
    probe = read_senteval(path, surface=False)
    tested = probe.labels[probe.split == TEST]
    changes = int((np.diff(tested) != 0).sum())
    assert changes > 30  # one, where they come sorted
    again, other = (read_senteval(path, surface=False, seed=seed) for seed in (0, 1))
    assert again.texts == probe.texts and other.texts != probe.texts


def test_size_cuts_every_partition_alike(tmp_path):
    probe = read_senteval(write_senteval(tmp_path, "obj_number", count=200), size=100, surface=False)
    assert np.bincount(probe.split).tolist() == [50, 25, 25]
    assert 0.3 < probe.labels.mean() < 0.7  # not the first of a sorted list


def test_packed_files_and_given_tasks_are_read(tmp_path):
    plain = write_senteval(tmp_path, "past_present")
    packed = tmp_path / "renamed.txt.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes()))
    assert read_senteval(packed, task="past_present", surface=False).texts == read_senteval(plain, surface=False).texts
    with pytest.raises(UserError, match="task 'renamed' is unknown; the file's name says which it is: sentence_l"):
        read_senteval(packed)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("tr\tO", "line 3: 2 columns, not the 3 of SentEval"),
        ("train\tO\tA sentence .", "line 3: the split is 'train', not tr, va or te"),
        ("tr\tX\tA sentence .", "line 3: 'X' is no label of bigram_shift"),
        ("tr\tO\t ", "line 3: an empty column"),
    ],
)
def test_a_line_that_is_not_sentevals_is_named(tmp_path, line, message):
    path = write_senteval(tmp_path, "bigram_shift", line2=line)
    with pytest.raises(CorpusError, match=f"bigram_shift.txt, {message}"):
        read_senteval(path)


def test_missing_files_and_partitions_are_named(tmp_path):
    with pytest.raises(CorpusError, match="there is no file .*bigram_shift.txt"):
        read_senteval(tmp_path / "bigram_shift.txt")
    path = tmp_path / "bigram_shift.txt"
    path.write_text("tr\tO\ta b\ntr\tI\tb a\n")
    with pytest.raises(UserError, match="probe senteval_bigram_shift: the data have no development items"):
        read_senteval(path)


def write_discoeval(folder, task, counts=(40, 12, 16)):
    for stem, count in zip(("train", "valid", "test"), counts, strict=True):
        rows = []
        for i in range(count):
            if task == "bso":
                rows.append([f"{stem} {i} opens .", f"{stem} {i} ends ."])
            elif task == "sp":
                rows.append([str(i % 5), *(f"{stem} {i} part {part} is {i % 5} ." for part in "abcde")])
            elif task == "dc":
                middle = "fits" if i % 2 else "is odd"
                rows.append([str(i % 2), *(f"{stem} {i // 2} {part} {middle * (part == 'c')} ." for part in "abcdef")])
            else:
                rows.append([str(i % 2), f"{stem} {i} {'we propose' if i % 2 else 'table'} ."])
        (folder / f"{stem}.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    return folder


def test_both_orders_of_a_pair_are_asked_and_share_a_group(tmp_path):
    probe = read_discoeval(write_discoeval(tmp_path, "bso"), task="bso")
    assert np.bincount(probe.split).tolist() == [80, 24, 32] and probe.combine == "difference"
    for i in range(len(probe.labels)):
        first, second = (probe.texts[text] for text in probe.places[i, :, 0])
        assert ("opens" in first, "ends" in second) == 2 * (probe.label_names[probe.labels[i]] == "in order",)
    assert all(sorted(probe.labels[probe.groups == group]) == [0, 1] for group in set(probe.groups))
    assert probe.surface["words"] == 1.0 and len(probe.texts) == 2 * 68


@pytest.mark.parametrize(("task", "places", "classes"), [("sp", 5, 5), ("dc", 6, 2), ("ssp", 1, 2)])
def test_labels_and_sentences_of_the_other_tasks_are_read(tmp_path, task, places, classes):
    probe = read_discoeval(write_discoeval(tmp_path, task), task=task)
    assert probe.places.shape == (68, places, 3) and len(probe.label_names) == classes
    for i in range(68):
        texts = [probe.texts[text] for text in probe.places[i, :, 0]]
        label = probe.label_names[probe.labels[i]]
        if task == "sp":
            assert all(text.endswith(f"is {label} .") for text in texts) and "part a" in texts[0]
        elif task == "dc":
            assert ("fits" in texts[2]) == (label == "coherent")
        else:
            assert ("propose" in texts[0]) == (label == "abstract")
    assert probe.surface["words"] == 1.0


def test_a_line_and_its_corrupted_twin_share_a_group(tmp_path):
    probe = read_discoeval(write_discoeval(tmp_path, "dc"), task="dc", surface=False)
    assert all(sorted(probe.labels[probe.groups == group]) == [0, 1] for group in set(probe.groups))


def test_packed_folders_are_read_and_wrong_ones_named(tmp_path):
    plain = read_discoeval(write_discoeval(tmp_path, "ssp"), task="ssp", surface=False)
    for stem in ("train", "valid", "test"):
        path = tmp_path / f"{stem}.txt"
        (tmp_path / f"{stem}.txt.gz").write_bytes(gzip.compress(path.read_bytes()))
        path.unlink()
    assert read_discoeval(tmp_path, task="ssp", surface=False).texts == plain.texts
    with pytest.raises(CorpusError, match="train.txt.gz, line 1: 2 columns, not the 6 of SP"):
        read_discoeval(tmp_path, task="sp")
    (tmp_path / "test.txt.gz").unlink()
    with pytest.raises(CorpusError, match="has no test.txt; DiscoEval's folders hold train.txt, valid.txt"):
        read_discoeval(tmp_path, task="ssp")
    with pytest.raises(UserError, match="DiscoEval task 'rst' is unknown; known: bso, sp, dc, ssp"):
        read_discoeval(tmp_path, task="rst")
    for stem in ("train", "test"):
        (tmp_path / f"{stem}.txt").write_text("5\ta .\n")
    with pytest.raises(CorpusError, match="train.txt, line 1: '5' is no label of SSP"):
        read_discoeval(tmp_path, task="ssp")
    with pytest.raises(
        CorpusError, match="there is no folder '.*none' of DiscoEval's ssp; name one that holds train.txt"
    ):
        read_discoeval(tmp_path / "none", task="ssp")
    assert list(DISCOEVAL_TASKS) == ["bso", "sp", "dc", "ssp"]
