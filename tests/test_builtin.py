"""The built-in prose: whole sentences come out of docstrings, and nothing else does."""

import ast
import re
import subprocess
import sys
import textwrap
from collections import Counter
from pathlib import Path

import pytest

from corpora import builtin, docstrings
from corpora.errors import CorpusError
from corpora.sources import TextSource, fingerprint_source, read_documents

ROOT = Path(__file__).parents[1]


def clean(text: str) -> list[str]:
    return [" ".join(paragraph) for paragraph in docstrings.clean_docstring("\n" + textwrap.dedent(text))]


@pytest.fixture
def fresh_cache() -> object:
    builtin.gather_documents.cache_clear()
    yield
    builtin.gather_documents.cache_clear()


def test_numpy_style_gives_its_prose_and_the_descriptions_of_parameters() -> None:
    text = """
        frobnicate(x, /, axis=None)

        Return the frobnication of a
        given array.

        Parameters
        ----------
        x : array_like
            Input array.
        axis : int, optional
            The axis along which to work. By default, the array is flattened first.

        Returns
        -------
        out : ndarray
            The result.

        See Also
        --------
        numpy.fold : Something else entirely that nobody needs.

        Notes
        -----
        The algorithm is older than the library. It takes linear time.

        .. versionadded:: 1.2
           This sentence belongs to the version note.

        References
        ----------
        .. [1] A. Author, "A long and winding title of a paper", 1999.

        Examples
        --------
        This sentence stands among the examples.

        >>> frobnicate([1, 2])
        array([2, 1])
        """
    assert clean(text) == [
        "Return the frobnication of a given array.",
        "The axis along which to work. By default, the array is flattened first.",
        "The algorithm is older than the library. It takes linear time.",
    ]


def test_google_style_and_fields_give_descriptions_of_two_sentences() -> None:
    text = """
    Open the heavy door.

    Args:
        name (`str`, *optional*):
            The name of the door. It must not be empty.
        force (bool): Whether to push.

    Returns:
        `bool`: Whether it has opened. The answer is never wrong.

    Example:

    ```python
    >>> door = Door()
    The body of a fence is no prose at all.
    ```

    :param key: The key that fits. Any other key breaks.
    :returns: nothing

    Note:
        The note is kept because it is prose.
    """
    assert clean(text) == [
        "Open the heavy door.",
        "The name of the door. It must not be empty.",
        "Whether it has opened. The answer is never wrong.",
        "The key that fits. Any other key breaks.",
        "The note is kept because it is prose.",
    ]


@pytest.mark.parametrize(
    ("markup", "text"),
    [
        ("See how :class:`~package.Thing` wraps ``value`` and *others*.", "See how Thing wraps value and others."),
        ("Read the `user guide <https://example.org>`_ before **you** start.", "Read the user guide before you start."),
        ("Use [`Trainer`] or [the loop](https://example.org/a_(b)) here.", "Use Trainer or the loop here."),
        (".. note:: Read this note with care.\n   It is not long.", "Read this note with care. It is not long."),
        ("Call foo() as described by others [1]_ long ago.", "Call foo as described by others long ago."),
        ("<Tip>Small models learn <b>very</b> fast.</Tip>", "Small models learn very fast."),
        ("**Note:** The order of the keys is kept.", "The order of the keys is kept."),
        ("Return the number of open files", "Return the number of open files."),
    ],
)
def test_markup_becomes_plain_text(markup: str, text: str) -> None:
    assert clean(markup) == [text]


@pytest.mark.parametrize(
    "text",
    [
        ">>> 1 + 1\n2",
        "The matrix is given by $x^2 + y^2$ for all values.",
        "Set x = 3 and hope for the best.",
        "See https://example.org for the rest of it.",
        "Copyright 2020 by somebody who owns it all.",
        "Licensed under the terms of something very long.",
        "| a | b |\n|---|---|\n| one cell | another cell |",
        "Title of the page\n=================",
        "# A heading in markdown style here",
        "The following arguments can be given:",
        "term\n    Its definition is indented. It is part of a list.",
        ".. math::\n\n    The sum of all the things.",
        "lower case begins this one here.",
        "ValueError: The partition is not valid.",
        "An unbalanced (parenthesis stays open here.",
        "def f(x): return the thing you want.",
        "Including a plot:: directive in the page is easy.",
    ],
)
def test_what_is_no_prose_is_left_out(text: str) -> None:
    assert clean(text) == []


def test_a_paragraph_that_loses_most_of_itself_is_left_out() -> None:
    assert clean("Set a = 1, b = 2 and c = 3 in every file that you have. It works well.") == []
    assert clean("This sentence is much longer than the one after it. Set a = 1.") == [
        "This sentence is much longer than the one after it."
    ]


def test_docstrings_of_classes_and_functions_are_found_and_those_of_tests_are_not() -> None:
    source = (
        '"""Module."""\n'
        'class A:\n    """Class."""\n    def f(self):\n        """Method."""\n'
        '        def g():\n            """Inner."""\n'
        'if True:\n    async def h():\n        """Under a condition."""\n'
        'def test_x():\n    """Test."""\nclass TestY:\n    """Test."""\n'
        'x = """No docstring."""\n'
    )
    assert docstrings.read_docstrings(source) == ["Module.", "Class.", "Method.", "Inner.", "Under a condition."]
    with pytest.raises(SyntaxError):
        docstrings.read_docstrings("def {{ name }}():")


def write_modules(folder: Path) -> list[str]:
    sources = {
        "a.py": '"""The first sentence is here. The second one follows it.\n\nBuild a BertModel from its parts.\n"""\n',
        "b.py": '"""The first sentence is here. The second one follows it.\n\nBuild a GPT2Model from its parts.\n"""\n',
        "c.py": '"""The second one follows it. New things stand here. So they are kept. There are three of them."""\n',
        "d.py": "def {{ broken }}: pass  # '''many words that look like prose to the filter that counts them'''\n",
        "e.py": '"""Too little is said here."""\n',
    }
    for name, source in sources.items():
        (folder / name).write_text(source)
    return [str(folder / name) for name in sources]


@pytest.mark.parametrize("num_processes", [1, 2, 4])
def test_a_sentence_occurs_once_even_with_another_name_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None, num_processes: int
) -> None:
    files = write_modules(tmp_path)
    monkeypatch.setattr(builtin, "list_modules", lambda: files)
    monkeypatch.setattr(builtin, "MAX_PROCESSES", num_processes)
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    assert list(builtin.read_builtin_prose()) == [
        "The first sentence is here. The second one follows it.\nBuild a BertModel from its parts.",
        "New things stand here. So they are kept. There are three of them.",
    ]


def test_a_worker_that_dies_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh_cache: None) -> None:
    (tmp_path / "worker.py").write_text("import sys; sys.stdin.read(); sys.exit(1)")
    monkeypatch.setattr(docstrings, "__file__", str(tmp_path / "worker.py"))
    monkeypatch.setattr(builtin, "list_modules", lambda: ["x.py"])
    with pytest.raises(CorpusError, match=r"stopped at x\.py"):
        list(builtin.read_builtin_prose())


def test_only_sources_of_python_and_of_requirements_are_listed_in_a_fixed_order() -> None:
    files = builtin.list_modules()
    assert files == builtin.list_modules() and len(set(files)) == len(files) > 5000
    assert not [
        path for path in files if re.search(r"/(tests?|site-packages/(pytest|hypothesis|ruff|mypy|nltk))/", path)
    ]
    assert any(path.endswith("pydoc_data/topics.py") for path in files)


def test_the_fingerprint_names_python_and_the_packages() -> None:
    versions = builtin.fingerprint_builtin()
    assert {"python", "torch", "transformers", "numpy", "builtin"} <= set(
        versions
    ) and "unknown" not in versions.values()
    assert fingerprint_source(TextSource()) == fingerprint_source(TextSource())


@pytest.mark.slow
def test_the_built_in_text_is_ample_prose_without_repetition() -> None:
    documents = list(read_documents(TextSource()))
    paragraphs = [paragraph for document in documents for paragraph in document.split("\n")]
    num_words = sum(len(paragraph.split()) for paragraph in paragraphs)
    assert 500_000 < num_words < 1_000_000 and len(documents) > 1000
    assert all(re.search(r"[.!?][)\"']?$", paragraph) for paragraph in paragraphs)
    assert max(Counter(paragraphs).values()) == 1
    text = "\n".join(paragraphs)
    for unwanted in (">>>", "```", "::", ":class:", "http:", "https:", ":param", "{", "=", "Copyright", "Licensed"):
        assert text.count(unwanted) == 0, unwanted
    words = Counter(text.lower().split())
    assert words["the"] > 0.04 * num_words


@pytest.mark.slow
def test_reading_it_imports_none_of_the_packages_and_needs_no_main_guard(tmp_path: Path) -> None:
    script = (
        "import sys\nfrom corpora import builtin\n"
        "print(sum(len(d.split()) for d in builtin.read_builtin_prose()))\n"
        "print([name for name in ('torch', 'transformers', 'sympy', 'networkx') if name in sys.modules])\n"
    )
    (tmp_path / "script.py").write_text(f"import sys; sys.path.insert(0, {str(ROOT)!r})\n{script}")
    command = [sys.executable, str(tmp_path / "script.py")]
    first, second = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert int(first) > 500_000
    assert "sympy" not in ast.literal_eval(second) and "networkx" not in ast.literal_eval(second)
