"""Plant bugs that references have had, one at a time in a copy of the tree, and see that a test turns red.

    python -m tests.plant_bugs            all of them, then a table
    python -m tests.plant_bugs nsp mlm    those whose name contains one of the words
    python -m tests.plant_bugs --list     names only, after a check that each can still be planted

Each entry of BUGS names a file, a piece of it that stands there exactly once, what is put in its place, and the test.
Exit status: 0 where each was found, else 1. Not collected by pytest: a few seconds a bug.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.planted_bugs import MORE

ROOT = Path(__file__).parent.parent
COPIED = ("corpora", "objectives", "generators", "training", "probes", "tests", "pretrain.py", "pyproject.toml")
SECONDS = 900  # for one test


@dataclass(frozen=True)
class Bug:
    """A mistake, where to plant it, and which test it must turn red."""

    name: str  # in words, and whose it was
    file: str
    old: str
    new: str
    test: str  # as pytest is given it


BUGS = (
    Bug(
        "some tokens are selected twice (google-research/electra)",
        "objectives/masking.py",
        "    return np.flatnonzero(keys < np.repeat(limits, sequences.lengths))",
        "    chosen = np.flatnonzero(keys < np.repeat(limits, sequences.lengths))\n"
        "    return np.sort(np.append(chosen[1:], chosen[-1:]))",
        "tests/test_masking.py::test_selection_is_without_replacement_and_never_of_special_tokens",
    ),
    Bug(
        "special tokens are selected (ModernBERT, cramming)",
        "objectives/masking.py",
        "    keys[~sequences.is_free] = _LAST",
        "    keys[:0] = _LAST",
        "tests/test_masking.py::test_selection_is_without_replacement_and_never_of_special_tokens",
    ),
    Bug(
        "special ids are drawn as random tokens (google-research/bert, transformers)",
        "objectives/masking.py",
        "    ordinary = vocabulary.ordinary_ids",
        "    ordinary = np.arange(vocabulary.size)",
        "tests/test_objectives.py::test_the_contract_holds[mlm-special_tokens]",
    ),
    Bug(
        "the number of selected tokens is rounded down",
        "objectives/masking.py",
        "np.rint(sequences.lengths * rate)",
        "np.floor(sequences.lengths * rate)",
        "tests/test_masking.py::test_the_count_is_berts_rounded_half_to_even_with_specials_counted",
    ),
    Bug(
        "originals are read after hiding (ltgoslo/ltg-bert)",
        "objectives/mlm.py",
        "values=sequences.token_ids[positions])",
        "values=shown)",
        "tests/test_token_objectives.py::test_mlm_asks_for_the_originals_and_changes_nothing_else",
    ),
    Bug(
        "the detector's gradient reaches the generator's table under gdes",
        "training/embeddings.py",
        "F.embedding(token_ids, self.generator_table.weight.detach())",
        "F.embedding(token_ids, self.generator_table.weight)",
        "tests/test_token_objectives.py"
        "::test_disentangled_sharing_keeps_the_detectors_gradient_from_the_generators_table",
    ),
    Bug(
        "a random second text may be of the same document (google-research/bert)",
        "objectives/pairs.py",
        "return others + own_count * (others >= own_first)",
        "return others",
        "tests/test_sentence_objectives.py::test_a_random_second_text_is_never_of_the_first_ones_document",
    ),
    Bug(
        "a shuffle may leave every sentence in its place",
        "objectives/ordering.py",
        "pending = pending & ~moved",
        "pending = pending & False",
        "tests/test_sentence_objectives.py::test_permutations_are_uniform_among_those_that_are_not_the_identity",
    ),
    Bug(
        "a step's loss is the mean of its micro-batches' means",
        "training/loop.py",
        "weights[name] * loss.total / max(counts[name], 1)",
        "weights[name] * loss.total / max(loss.count, 1) / len(batches)",
        "tests/test_loop.py::test_gradients_do_not_depend_on_how_a_step_is_cut[mlm]",
    ),
    Bug(
        "attention reads the padding",
        "generators/network.py",
        "        return view.attention_mask\n",
        "        return torch.ones_like(view.attention_mask)\n",
        "tests/test_objectives.py::test_the_contract_holds[mlm-padding]",
    ),
    Bug(
        "an arm of a mixture weighs as if the whole step were its own",
        "training/loop.py",
        "weight * shares[run.model.owners[name]] for",
        "weight for",
        "tests/test_mixture.py::test_a_loss_is_over_its_own_targets_and_has_its_arms_share",
    ),
    Bug(
        "micro-batches of a mixture are dealt out by turns, whatever the weights",
        "training/mixture.py",
        "        point -= arms[index].weight\n",
        "        point -= sum(arms[each].weight for each in active) / len(active)\n",
        "tests/test_mixture.py::test_any_stretch_of_micro_batches_has_the_arms_in_proportion",
    ),
    Bug(
        "a recipe wins over what was given",
        "training/recipes.py",
        "    return settings | dict(given)",
        "    return dict(given) | settings",
        "tests/test_recipes.py::test_options_and_yaml_win_over_a_recipe_and_options_over_yaml",
    ),
) + tuple(Bug(*each) for each in MORE)


def find_stale(bugs: Sequence[Bug]) -> list[str]:
    """Return a line for each bug whose piece of text does not stand exactly once in its file."""
    lines = []
    for bug in bugs:
        times = (ROOT / bug.file).read_text(encoding="utf-8").count(bug.old)
        if times != 1:
            lines.append(f"{bug.name}: what it replaces stands {times} times in {bug.file}; write the entry anew")
    return lines


def copy_tree(folder: Path) -> None:
    """Copy what the tests need."""
    for name in COPIED:
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, folder / name)
        else:
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(folder: Path, tests: Sequence[str]) -> tuple[int, str]:
    """Return pytest's exit status, and the last line of what it says: 1 means that a test was red."""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=SECONDS * len(tests)
    )
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    return done.returncode, lines[-1] if lines else done.stderr[-200:]


def try_bug(folder: Path, bug: Bug) -> str:
    """Plant a bug in the copy, run its test, take the bug out; return found, missed, or what went wrong."""
    path = folder / bug.file
    sound = path.read_text(encoding="utf-8")
    path.write_text(sound.replace(bug.old, bug.new), encoding="utf-8")
    try:
        status, last = run_tests(folder, [bug.test])
    except subprocess.TimeoutExpired:
        return "no answer"
    finally:
        path.write_text(sound, encoding="utf-8")
    return {0: "MISSED", 1: "found"}.get(status, f"pytest failed: {last}")


def main(argv: Sequence[str]) -> int:
    """Plant the bugs that were asked for, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.plant_bugs", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("words", nargs="*", help="plant only bugs whose name or file contains one of these")
    parser.add_argument("--list", action="store_true", help="print the names, and whether each can be planted")
    options = parser.parse_args(argv)
    bugs = [bug for bug in BUGS if not options.words or any(w in f"{bug.name} {bug.file}" for w in options.words)]
    stale = find_stale(bugs)
    for line in [bug.name for bug in bugs] * options.list + stale:
        print(line)
    if options.list or stale:
        return 1 if stale else 0
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        copy_tree(folder)
        status, last = run_tests(folder, sorted({bug.test for bug in bugs}))
        if status != 0:
            print(f"the tests are not green before any bug is planted: {last}")
            return 1
        for bug in bugs:
            started = time.monotonic()
            results.append((try_bug(folder, bug), time.monotonic() - started, bug))
            print(f"{results[-1][0]:<8} {results[-1][1]:5.0f} s  {bug.name}", flush=True)
    found = sum(result == "found" for result, _, _ in results)
    print(f"\n{'result':<10} {'file':<32} test")
    for result, _, bug in results:
        print(f"{result:<10} {bug.file:<32} {bug.test.partition('::')[2]}")
    print(f"\n{found} of {len(bugs)} bugs were found")
    return 0 if found == len(bugs) else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
