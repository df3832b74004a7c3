"""Probes from a treebank: reading CoNLL-U, and what is asked of its trees."""

import gzip
from dataclasses import replace

import numpy as np
import pytest

from corpora.errors import CorpusError, UserError
from probes import raw_pool
from probes.probe import DEV, TEST, TRAIN, Probe
from probes.raw_pool import SHARES
from probes.treebank import (
    TREEBANK_PROBES,
    build_suite,
    build_treebank_suite,
    control_ceiling,
    read_treebank,
    type_majority,
)
from probes.treebank_read import Tree, Word
from probes.treebank_sentences import find_clauses, invert
from probes.treebank_trees import build_dependency_tree

CONTRACTIONS = """\
# newdoc id = one
# sent_id = 1
# text = Non parlo della casa, don't.
1\tNon\tnon\tADV\tB\t_\t2\tadvmod\t_\t_
2\tparlo\tparlare\tVERB\tV\tTense=Pres|VerbForm=Fin\t0\troot\t_\t_
3-4\tdella\t_\t_\t_\t_\t_\t_\t_\t_
3\tdi\tdi\tADP\tE\t_\t5\tcase\t_\t_
4\tla\til\tDET\tRD\t_\t5\tdet\t_\t_
5\tcasa\tcasa\tNOUN\tS\tNumber=Sing\t2\tobl:arg\t_\tSpaceAfter=No
6\t,\t,\tPUNCT\tFF\t_\t2\tpunct\t_\t_
6.1\tnothing\t_\t_\t_\t_\t_\t_\t_\t_
7-8\tdon't\t_\t_\t_\t_\t_\t_\t_\tSpaceAfter=No
7\tdo\tdo\tVERB\tV\t_\t2\tconj\t_\t_
8\tn't\tnot\tPART\tP\t_\t7\tadvmod\t_\t_
9\t.\t.\tPUNCT\tFS\t_\t2\tpunct\t_\t_
"""


def write(folder, text, name="file.conllu"):
    path = folder / name
    path.write_text(text)
    return path


def read(folder, text):
    """Sentences of one file, all of which is training text."""
    other = write(folder, CONTRACTIONS, "other.conllu")
    return read_treebank(write(folder, text), other, other)


def make_sentence(words):
    """A CoNLL-U block of (form, tag, features, head, relation)."""
    return "".join(
        f"{i}\t{form}\t_\t{tag}\t_\t{features}\t{head}\t{relation}\t_\t_\n"
        for i, (form, tag, features, head, relation) in enumerate(words, start=1)
    )


def invent_treebank(documents=60, seed=0):
    """Sentences "the noun verb the noun adverb ... ." of one tree each, ten a document."""
    rng = np.random.default_rng(seed)
    lines = []
    for document in range(documents):
        for number in range(10):
            noun, other = (int(n) for n in rng.integers(80, size=2))
            plural, many, past, deep = (bool(side) for side in rng.integers(2, size=4))
            tail = int(rng.integers(0, 6))
            words = [
                ("the", "DET", "_", 2, "det"),
                (f"noun{noun}{'s' * plural}", "NOUN", f"Number={'Plur' if plural else 'Sing'}", 3, "nsubj"),
                (
                    f"verb{noun}{'ed' if past else ''}",
                    "VERB",
                    f"Tense={'Past' if past else 'Pres'}|VerbForm=Fin",
                    0,
                    "root",
                ),
                ("a", "DET", "_", 5, "det"),
                (f"thing{other}{'s' * many}", "NOUN", f"Number={'Plur' if many else 'Sing'}", 3, "obj"),
            ]
            for i in range(tail):
                words.append((f"word{rng.integers(50)}", "ADV", "_", 5 + i if deep else 3, "advmod"))
            words.append((".", "PUNCT", "_", 3, "punct"))
            opening = f"# newdoc id = {document}\n" if number == 0 else ""
            lines.append(f"{opening}# sent_id = {document}-{number}\n{make_sentence(words)}\n")
    return "".join(lines)


@pytest.fixture(scope="module")
def trees(tmp_path_factory):
    return read_treebank(write(tmp_path_factory.mktemp("bank"), invent_treebank()))


@pytest.fixture(scope="module")
def probes(trees):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(raw_pool, "FEWEST", {TRAIN: 60, DEV: 15, TEST: 30})
        return {probe.name: probe for probe in build_suite(trees, size=None)}


def test_contractions_are_taken_apart_where_their_words_make_them_up(tmp_path):
    tree = read(tmp_path, CONTRACTIONS)[0]
    assert tree.text == "Non parlo della casa, don't."
    shown = [(word.form, tree.text[slice(*word.span)], word.is_shared) for word in tree.words]
    assert shown[2:4] == [("di", "della", True), ("la", "della", True)]
    assert shown[6:8] == [("do", "do", False), ("n't", "n't", False)]
    assert [word.form for word in tree.words] == "Non parlo di la casa , do n't .".split()  # no empty node
    assert tree.words[4].relation == "obl" and tree.words[4].head == 1 and tree.words[1].head == -1
    assert (tree.root, tree.depth(), tree.children(6)) == (1, 2, [7])


def test_a_text_that_does_not_fit_is_made_of_the_forms(tmp_path):
    fields = CONTRACTIONS.replace("# text = Non parlo della casa, don't.", "# text = Something else.")
    assert read(tmp_path, fields)[0].text == "Non parlo della casa, don't."
    bare = make_sentence([("a", "X", "_", 0, "root"), ("b", "X", "_", 1, "dep")])
    tree = read(tmp_path, bare)[0]
    assert tree.text == "a b" and [word.span for word in tree.words] == [(0, 1), (2, 3)]


def test_gzip_and_several_files_are_read_and_documents_are_numbered_on(tmp_path):
    plain = write(tmp_path, CONTRACTIONS + "\n" + CONTRACTIONS.replace("one", "two"))
    packed = tmp_path / "more.conllu.gz"
    packed.write_bytes(gzip.compress(CONTRACTIONS.encode()))
    trees = read_treebank([plain, packed], plain, packed)
    assert [(tree.split, tree.group) for tree in trees] == [
        (TRAIN, 0),
        (TRAIN, 1),
        (TRAIN, 2),
        (DEV, 3),
        (DEV, 4),
        (TEST, 5),
    ]


def test_one_file_is_split_by_document_and_unmarked_ones_by_twenty_sentences(tmp_path, trees):
    assert {tree.split for tree in trees} == {TRAIN, DEV, TEST}
    for group in range(60):
        assert len({tree.split for tree in trees if tree.group == group}) == 1
    counts = np.bincount([tree.split for tree in trees])
    assert counts.tolist() == [360, 90, 150]
    sentence = make_sentence([("a", "X", "_", 0, "root")]) + "\n"
    unmarked = read_treebank(write(tmp_path, sentence * 70))
    assert sorted({tree.group for tree in unmarked}) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="the treebank has 2 documents, and 3 are needed to split it"):
        read_treebank(write(tmp_path, sentence * 40))


@pytest.mark.parametrize(
    ("wrong", "right", "message"),
    [
        ("1\tNon\tnon\tADV", "1\tNon\tADV", "line 4: 9 columns where CoNLL-U has 10"),
        ("5\tcasa", "6\tcasa", "sentence at line 1: its words are not numbered 1 to 9"),
        ("\t7\tadvmod", "\t12\tadvmod", "sentence at line 1: word 8 has head 12"),
        ("\t7\tadvmod", "\t_\tadvmod", "sentence at line 1: word 8 has head _"),
        ("\t7\tadvmod", "\t0\tadvmod", "sentence at line 1: 2 roots; a tree has 1"),
        ("\t2\tconj", "\t8\tconj", "sentence at line 1: word 7 is its own ancestor"),
        ("\t7\tadvmod", "\tx\tadvmod", "sentence at line 1: "),
    ],
)
def test_what_is_no_tree_is_named_by_file_and_line(tmp_path, wrong, right, message):
    assert wrong in CONTRACTIONS
    with pytest.raises(CorpusError, match=f"file.conllu, {message}"):
        read(tmp_path, CONTRACTIONS.replace(wrong, right))


def test_missing_damaged_and_empty_files_are_named(tmp_path):
    with pytest.raises(CorpusError, match="absent.conllu cannot be read: No such file"):
        read_treebank(tmp_path / "absent.conllu")
    broken = tmp_path / "broken.conllu.gz"
    broken.write_bytes(gzip.compress(CONTRACTIONS.encode())[:-20])
    with pytest.raises(CorpusError, match="broken.conllu.gz cannot be read"):
        read_treebank(broken)
    with pytest.raises(UserError, match="the treebank has no sentence"):
        read_treebank(write(tmp_path, "# nothing\n\n"))
    latin = tmp_path / "latin.conllu"
    latin.write_bytes("# caf\xe9\n".encode("latin-1"))
    with pytest.raises(CorpusError, match="latin.conllu is not UTF-8"):
        read_treebank(latin)


def test_every_probe_but_coordination_comes_of_plain_sentences(probes, trees, capsys):
    assert list(probes) == [name for name in TREEBANK_PROBES if name != "coordination_inversion"]
    for probe in probes.values():
        of_text = {tree.text: tree for tree in trees}
        assert all(of_text[text].text == text for text in probe.texts)
        for split in SHARES:
            here = probe.split == split
            assert not set(probe.groups[here]) & set(probe.groups[~here])
    with pytest.raises(UserError, match="^probe coordination_inversion: the text gives 0 training"):
        build_suite(trees, names=["coordination_inversion"])
    with pytest.raises(UserError, match="probe 'upos' is unknown; known: pos, "):
        build_suite(trees, names=["upos"])


def test_tags_are_those_of_the_words_and_control_labels_hang_on_the_form_alone(probes, trees):
    probe = probes["pos"]
    tags = {(tree.text, *word.span): word.upos for tree in trees for word in tree.words}
    of_form = {}
    for i, (text, start, end) in enumerate(probe.places[:, 0].tolist()):
        assert probe.label_names[probe.labels[i]] == tags[probe.texts[text], start, end]
        form = probe.texts[text][start:end]
        assert of_form.setdefault(form, int(probe.control_labels[i])) == probe.control_labels[i]
    assert len(probe.labels) == sum(len(tree.words) for tree in trees)
    drawn = np.bincount([of_form[form] for form in sorted(of_form)], minlength=5) / len(of_form)
    real = np.bincount(probe.labels[probe.split == TRAIN], minlength=5) / (probe.split == TRAIN).sum()
    assert np.abs(drawn - real).max() < 0.1


def word_probe(words, splits, labels, count):
    """Items that are whole one-word texts."""
    return Probe(
        name="made",
        question="?",
        texts=tuple(words),
        places=np.array([[[i, 0, len(word)]] for i, word in enumerate(words)]),
        labels=np.array(labels),
        label_names=tuple("ABC"[:count]),
        split=np.array(splits, dtype=np.int8),
        groups=np.zeros(len(words), np.int64),
    )


def test_type_majority_and_control_ceiling_are_counted_by_hand():
    """a is B twice and A once, b is A, A and B are as frequent: a/B twice, b/A and c/A are right, d/B is wrong."""
    words = ["a", "a", "a", "b", "a", "a", "b", "c", "d"]
    probe = word_probe(words, [0, 0, 0, 0, 2, 2, 2, 2, 2], [1, 1, 0, 0, 1, 1, 0, 0, 1], 2)
    assert type_majority(probe) == 4 / 5
    assert control_ceiling(probe) == 3 / 5
    assert probe.majority == 2 / 5


def test_unseen_and_ambiguous_words_are_marked(tmp_path, monkeypatch):
    monkeypatch.setattr(raw_pool, "FEWEST", {TRAIN: 1, DEV: 1, TEST: 1})
    cycle = [("run", "NOUN"), ("run", "VERB"), ("dog", "NOUN"), ("go", "VERB")] * 6
    training = make_sentence([(form, tag, "_", 0 if i == 0 else 1, "x") for i, (form, tag) in enumerate(cycle)])
    test = make_sentence([("run", "NOUN", "_", 0, "root"), ("cat", "NOUN", "_", 1, "x"), ("dog", "NOUN", "_", 1, "x")])
    files = [write(tmp_path, text, name) for text, name in ((training, "a"), (test, "b"), (test, "c"))]
    (probe,) = build_treebank_suite(*files, size=None, names=["pos"])
    marks = {}
    for i in np.flatnonzero(probe.split == TEST):
        text, start, end = probe.places[i, 0]
        marks[probe.texts[text][start:end]] = (bool(probe.subsets["unseen"][i]), bool(probe.subsets["ambiguous"][i]))
    assert marks == {"run": (False, True), "cat": (True, False), "dog": (False, False)}


def test_a_class_of_one_member_cannot_be_asked_for(tmp_path):
    one = make_sentence([("a", "X", "_", 2, "dep"), ("b", "NOUN", "_", 0, "root")]) + "\n"
    many = make_sentence([("b", "NOUN", "_", 0, "root")]) + "\n"
    path = write(tmp_path, one + many * 100)
    with pytest.raises(
        UserError, match="^probe pos: two labels with 5 training items are needed; the treebank has NOUN"
    ):
        build_treebank_suite(path, names=["pos"])
    past = (
        make_sentence([("was", "VERB", "VerbForm=Fin|Tense=Past", 0, "root")] + [("w", "X", "_", 1, "dep")] * 5) + "\n"
    )
    path = write(tmp_path, past + many * 100)
    with pytest.raises(UserError, match="^probe tense: the treebank has 1 sentences with the answer 'Past'"):
        build_treebank_suite(path, names=["tense"])


def test_rare_tags_are_left_out_and_said_to_be(trees):
    tagged = [*trees]
    odd = replace(tagged[0].words[0], upos="SYM")
    tagged[0] = replace(tagged[0], words=(odd, *tagged[0].words[1:]))
    (probe,) = build_suite(tagged, size=None, names=["pos"])
    assert "SYM" not in probe.label_names and probe.note.endswith("Left out as too rare: SYM.")


def test_half_of_the_arcs_lead_to_the_head_and_punctuation_has_none(probes, trees):
    probe = probes["dependency_arc"]
    assert probe.combine == "arc"
    words = {(tree.text, word.span[0]): (tree, i) for tree in trees for i, word in enumerate(tree.words)}
    for i in range(0, len(probe.labels), 7):
        (text, start, _), (_, other, _) = probe.places[i].tolist()
        tree, child = words[probe.texts[text], start]
        _, parent = words[probe.texts[text], other]
        assert (tree.words[child].head == parent) == bool(probe.labels[i]) and child != parent
        assert tree.words[child].upos != "PUNCT"
    assert probe.labels.mean() == 0.5


def test_relations_are_those_of_the_first_word(probes, trees):
    probe = probes["dependency_label"]
    assert probe.label_names == ("advmod", "det", "nsubj", "obj")
    relations = {(tree.text, word.span[0]): word.relation for tree in trees for word in tree.words}
    for i in range(0, len(probe.labels), 5):
        text, start, _ = probe.places[i, 0]
        assert probe.label_names[probe.labels[i]] == relations[probe.texts[text], int(start)]


@pytest.mark.parametrize(("name", "word"), [("tense", 2), ("subject_number", 1), ("object_number", 4)])
def test_the_word_asked_about_is_of_one_split_and_answers_are_balanced(probes, name, word):
    probe = probes[name]
    forms = {split: set() for split in SHARES}
    for i in range(len(probe.labels)):
        form = probe.texts[probe.places[i, 0, 0]].split()[word]
        forms[int(probe.split[i])].add(form)
        marked = form.endswith("ed") if name == "tense" else form.endswith("s")
        assert marked == (probe.label_names[probe.labels[i]] in ("Past", "Plur"))
    assert not forms[TRAIN] & forms[TEST] and not forms[TRAIN] & forms[DEV] and not forms[DEV] & forms[TEST]
    for split in SHARES:
        assert probe.labels[probe.split == split].mean() == 0.5
    assert probe.surface["form"] > 0.9 and set(probe.surface) == {"words", "length", "form"}


def test_each_length_has_as_many_deep_as_shallow_trees(probes, trees):
    probe = probes["tree_depth"]
    of_text = {tree.text: tree for tree in trees}
    counts = {}
    depths = {}
    for i in range(len(probe.labels)):
        tree = of_text[probe.texts[probe.places[i, 0, 0]]]
        counts.setdefault((int(probe.split[i]), len(tree.words)), []).append(int(probe.labels[i]))
        depths.setdefault(len(tree.words), ([], []))[probe.labels[i]].append(tree.depth())
    assert all(2 * sum(labels) == len(labels) for labels in counts.values())
    assert all(max(shallow) < min(deep) for shallow, deep in depths.values())


def coordinate():
    """ "We sang, and Tom left." """
    forms = ["We", "sang", ",", "and", "Tom", "left", "."]
    tags = ["PRON", "VERB", "PUNCT", "CCONJ", "PROPN", "VERB", "PUNCT"]
    heads = [1, -1, 5, 5, 5, 1, 1]
    relations = ["nsubj", "root", "punct", "cc", "nsubj", "conj", "punct"]
    spans = [(0, 2), (3, 7), (7, 8), (9, 12), (13, 16), (17, 21), (21, 22)]
    words = tuple(
        Word(form=form, upos=tag, features={}, head=head, relation=relation, span=span, is_shared=False)
        for form, tag, head, relation, span in zip(forms, tags, heads, relations, spans, strict=True)
    )
    return Tree(text="We sang, and Tom left.", words=words, split=TRAIN, group=0)


def test_clauses_change_places_with_their_capitals():
    tree = coordinate()
    halves = find_clauses(tree)
    assert halves == ((0, 2), (4, 6))
    assert invert(tree, *halves) == "Tom left, and we sang."
    proper = replace(tree.words[0], upos="PROPN")
    assert invert(replace(tree, words=(proper, *tree.words[1:])), *halves) == "Tom left, and We sang."
    without = replace(tree.words[4], relation="obj")
    assert find_clauses(replace(tree, words=(*tree.words[:4], without, *tree.words[5:]))) is None


def test_size_bounds_the_words_and_a_seed_fixes_them(trees):
    first, again = (build_suite(trees, size=1000, names=["pos"])[0] for _ in range(2))
    assert 600 <= (first.split == TRAIN).sum() <= 612 and (first.split == TEST).sum() <= 262
    assert first.texts == again.texts and np.array_equal(first.control_labels, again.control_labels)
    (other,) = build_suite(trees, size=1000, names=["pos"], seed=1)
    assert first.texts != other.texts


def test_a_tree_is_words_with_their_heads_and_a_chain_finds_the_arcs_between_neighbours(tmp_path):
    path = write(tmp_path, "\n".join([CONTRACTIONS] * 40))
    probe = build_dependency_tree(read_treebank(path, path, path), 0, None)
    assert probe.texts[:40] == probe.texts[40:80] and len(probe.texts) == 120  # equal sentences stay apart
    first = probe.places[:, 0, 0] == 0
    assert (probe.labels[first] - 1).tolist() == [1, -1, 4, 4, 1, 1, 1, 6, 1]
    assert probe.subsets["punctuation"][first].tolist() == [False] * 5 + [True] + [False] * 2 + [True]
    assert probe.places[first, 0, 1:].tolist()[1] == [4, 9]
    # Without punctuation: Non-parlo, di-casa, la-casa, parlo-casa, parlo-do, do-n't; neighbours: 1st, 3rd, 6th.
    assert probe.surface == {"linear_chain": 3 / 6} and probe.metric == "uuas" and probe.kind == "structural"


def test_a_treebank_with_too_few_words_has_no_trees(tmp_path):
    path = write(tmp_path, CONTRACTIONS)
    with pytest.raises(
        UserError, match="^probe dependency_tree: the text gives 9 training, 9 development, 9 test items"
    ):
        build_dependency_tree(read_treebank(path, path, path), 0, None)
