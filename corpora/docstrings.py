"""Docstrings to prose: code, doctests, tables, parameter lists and markup go, whole sentences stay.

Runs as a script too, in isolated processes: a JSON list of Python files on standard input, a JSON line for each of them
on standard output. It therefore imports nothing but the standard library.
"""

import ast
import gc
import inspect
import json
import re
import sys
import warnings
from collections.abc import Callable, Iterator

Paragraph = list[str]  # its sentences

MIN_TOPIC_CHARACTERS = 200
MIN_WORDS_PER_KILOBYTE = 38  # between triple quotes: keeps most of the prose and leaves most of the code alone
MIN_SENTENCE_WORDS, MAX_SENTENCE_WORDS = 4, 80
MAX_ODD_RATE = 0.2  # of a sentence's words: identifiers, formulas
MAX_LETTER_RATE = 0.1  # of a sentence's words: the letters of mathematics
MIN_KEPT_RATE = 0.6  # a paragraph that loses more of its words than this leaves does not read on

# What a section holds decides what is read of it: its prose, the descriptions in its list of names, or nothing.
DESCRIBED_SECTIONS = frozenset(
    "parameters parameter params args arguments arg keywords returns return yields yield raises raise receives warns"
    " attributes attribute options exceptions inputs outputs members".split()
    + ["other parameters", "keyword args", "keyword arguments", "optional arguments", "extra parameters"]
    + ["optional parameters", "additional parameters", "type parameters", "input args", "positional arguments"]
)
DROPPED_SECTIONS = frozenset(
    "methods example examples usage references reference citation bibliography todo shape shapes input output variables"
    " functions classes constants syntax synopsis signature history authors author credits license copyright".split()
    + ["see also", "example usage", "usage example", "usage examples", "example use", "input shape", "code example"]
    + ["table of contents", "expected output", "command line", "output shape"]
)
KEPT_SECTIONS = frozenset("note notes warning warnings tip tips important caution remark remarks hint".split())
KEPT_DIRECTIVES = frozenset("note warning tip important caution attention hint admonition".split())

FENCE = re.compile(r"(```+|~~~+)")
RULE = re.compile(r"([-=~^*#+\"'.`_])\1{2,}$")
TABLE = re.compile(r"\||[-=]{3,}[ +][-=]{2,}|\+[-=]{2,}")
SECTION = re.compile(r"\**([A-Za-z][A-Za-z ]{1,24}?)\**\s*:{1,2}\**(?:\s+(\S.*))?$")
ENTRY = re.compile(r"[-*\s]*[\w.`*, ]+(?:\([^()]*(?:\([^()]*\)[^()]*)*\))?\s*(?::|\s--?)\s+(?=[A-Z])")
SENTENCE_STOP = re.compile(r"[.!?](?=\s|$)")
FIELD = re.compile(r"(?::|@)[A-Za-z][^:`]*:(?:\s+|$)")
DIRECTIVE = re.compile(r"\.\.(?:\s+([\w:-]+)\s*::\s*(.*)|\s.*|$)")
ITEM = re.compile(r"(?:[-*+\u2022]|\(?(?:\d{1,2}|[a-z]|[ivx]{1,4})[.)]|#\.)\s+(?=\S)")
HEADING = re.compile(r"#{1,6}\s")


def read_docstrings(source: str) -> list[str]:
    """The documentation strings of a module, its classes and its functions, in order, without those of tests."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # invalid escapes in other people's code
        pending: list[ast.AST] = [ast.parse(source)]
    found: list[tuple[int, str]] = []
    while pending:
        node = pending.pop()
        body: list[ast.stmt] = getattr(node, "body", [])
        for child in [*body, *getattr(node, "orelse", [])]:
            if isinstance(child, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef, ast.If, ast.Try, ast.With)):
                pending.append(child)
        if isinstance(node, (ast.If, ast.Try, ast.With)) or getattr(node, "name", "").lower().startswith("test"):
            continue
        first = body[0] if body else None
        if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and isinstance(first.value.value, str):
            found.append((first.lineno, first.value.value))
    return [text for _, text in sorted(found)]


def read_topics(source: str) -> list[str]:
    """The language reference that `pydoc` carries: the long strings of a module that is one table of strings."""
    constants = [node.value for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Constant)]
    return [value for value in constants if isinstance(value, str) and len(value) >= MIN_TOPIC_CHARACTERS]


def clean_docstring(text: str) -> list[Paragraph]:
    """The paragraphs of a docstring that read as prose, each a list of its sentences."""
    lines = [line.rstrip() for line in inspect.cleandoc(text).split("\n")]
    paragraphs = []
    for block in gather_blocks(lines):
        sentences = split_sentences(remove_markup(block))
        kept = [sentence for sentence in sentences if reads_as_prose(sentence)]
        if sum(map(len, kept)) > MIN_KEPT_RATE * sum(map(len, sentences)):
            paragraphs.append(kept)
    return paragraphs


def gather_blocks(lines: list[str]) -> Iterator[str]:
    """The paragraphs and items at the outer level, each on one line; what is indented is code or belongs to a list."""
    position = 0
    while position < len(lines):
        line = lines[position]
        following = lines[position + 1].strip() if position + 1 < len(lines) else ""
        position += 1
        if not line or RULE.match(line):
            continue
        if line[0] == " " or line.startswith(">>>") or TABLE.search(line) or HEADING.match(line):
            position = skip_to_blank(lines, position)
        elif FENCE.match(line):
            while position < len(lines) and not FENCE.match(lines[position].strip()):
                position += 1
            position += 1
        elif RULE.match(following):
            end = skip_section(lines, position + 1) if section_of(line) != "prose" else position + 1
            yield from read_section(section_of(line), lines[position + 1 : end])
            position = end
        elif opened := open_body(line):
            kind, rest = opened
            end = skip_body(lines, position)
            if end == position and kind == "drop" and not rest:
                end = skip_to_blank(lines, position)
            body = dedent(lines[position:end])
            if kind == "describe" and rest:  # a field: what follows its colon is its description
                kind, body = "description", [rest, *body]
            elif rest:
                body = [rest, *body]
            yield from read_section(kind, body)
            position = end
        else:
            block, position = join_block(lines, position - 1)
            if block:
                yield block


def section_of(title: str) -> str:
    name = title.lower().rstrip(":").strip("* ")
    return "describe" if name in DESCRIBED_SECTIONS else "drop" if name in DROPPED_SECTIONS else "prose"


def open_body(line: str) -> tuple[str, str] | None:
    """What to do with the indented lines after `line`, and what of them stands on it; None where it opens nothing."""
    if directive := DIRECTIVE.match(line):
        return ("prose" if directive[1] in KEPT_DIRECTIVES else "drop"), directive[2] or ""
    if field := FIELD.match(line):
        return "describe", line[field.end() :]
    if section := SECTION.match(line):
        name, rest = section[1].lower(), section[2] or ""
        if name in KEPT_SECTIONS:
            return "prose", rest
        if name in DESCRIBED_SECTIONS | DROPPED_SECTIONS:
            return ("drop" if rest else section_of(name)), rest
    return None


def read_section(kind: str, lines: list[str]) -> Iterator[str]:
    """The prose of a section's body: all of it, the descriptions in it that are at least two sentences, or none."""
    if kind == "prose":
        yield from gather_blocks(lines)
    elif kind == "description":
        yield from (block for block in gather_blocks(lines) if len(SENTENCE_STOP.findall(block)) > 1)
    elif kind == "describe":
        start = 0
        while start < len(lines):
            end = skip_body(lines, start + 1)
            entry = ENTRY.match(lines[start])
            inline = [lines[start][entry.end() :]] if entry else []
            yield from read_section("description", inline + dedent(lines[start + 1 : end]))
            start = end


def join_block(lines: list[str], start: int) -> tuple[str, int]:
    """The paragraph or list item that starts at `start` ("" where it is a definition), and the line after it."""
    item = ITEM.match(lines[start])
    parts = [lines[start][item.end() :] if item else lines[start]]
    end = start + 1
    while end < len(lines) and (line := lines[end]):
        if not line.startswith(" ") and (ITEM.match(line) or line.startswith((">>>", "..", ":", "```"))):
            break
        if end + 1 < len(lines) and RULE.match(lines[end + 1].strip()):
            break
        if line.startswith(" ") and not item:
            continues = line.lstrip()[:1].islower() and len(parts[-1].split()) > 5 and parts[-1][-1] not in ".:"
            if not continues:  # a term and its definition, or code under its sentence
                return "", skip_to_blank(lines, end)
        parts.append(line.strip())
        end += 1
    text = " ".join(parts)
    return ("" if item and text[-1:] not in tuple(".!?") else text), end


def skip_to_blank(lines: list[str], position: int) -> int:
    while position < len(lines) and lines[position]:
        position += 1
    return position


def skip_body(lines: list[str], position: int) -> int:
    """The end of the indented lines that follow `position`; `position` itself where nothing is indented."""
    end = position
    while position < len(lines) and (not lines[position] or lines[position].startswith(" ")):
        position += 1
        if lines[position - 1]:
            end = position
    return end


def skip_section(lines: list[str], position: int) -> int:
    """The next title over a rule, from `position`; the end where there is none."""
    while position + 1 < len(lines):
        if lines[position] and RULE.match(lines[position + 1].strip()) and not RULE.match(lines[position]):
            return position
        position += 1
    return len(lines)


def dedent(lines: list[str]) -> list[str]:
    margin = min((len(line) - len(line.lstrip()) for line in lines if line), default=0)
    return [line[margin:] for line in lines]


MARKUP: list[tuple[re.Pattern[str], str | Callable[[re.Match[str]], str]]] = [
    (re.compile(r"(?:^|(?<=[.!?] ))\**(?:Note|NOTE|Warning|WARNING|Important|Tip|Caution)\**:\**\s+(?=[A-Z])"), ""),
    (re.compile(r"!\[[^\]]*\]\([^)]*\)"), ""),
    (re.compile(r":[a-zA-Z][\w:.+-]*:`([^`<]*?)\s*(?:<[^>`]*>)?`"), lambda match: last_name(match[1])),
    (re.compile(r"`([^`<]+?)\s*<[^>`]*>`_{0,2}"), r"\1"),
    (re.compile(r"\[([^\]\[]+)\]\((?:[^()\s]|\([^()]*\))*\)"), r"\1"),
    (re.compile(r"\s*\[#?[\w ]{0,12}\]_"), ""),
    (re.compile(r"\[?(`+)\s?([^`]+?)\s?\1_{0,2}\]?"), lambda match: last_name(match[2])),
    (re.compile(r"</?[a-zA-Z][^<>]{0,80}>"), " "),
    (re.compile(r"(?<![\w*])\*{1,3}(?=\S)([^*]+?)(?<=\S)\*{1,3}(?!\w)"), r"\1"),
    (re.compile(r"(?<![\w*])\*{1,2}(?=[a-z])"), ""),
    (re.compile(r"(?<!\w)_([A-Za-z][A-Za-z ,'-]*)_(?!\w)"), r"\1"),
    (re.compile(r"(?<=\w)\(\)"), ""),
    (re.compile(r"\s+[-\u2013\u2014]{1,3}\s+|\s*---?\s*(?=[A-Za-z])"), " - "),
    (re.compile(r"\s*\((?:see|cf\.?)?\s*\)"), ""),
    (re.compile(r"\s+([,.;:!?])(?=\s|$)"), r"\1"),
]
MARKUP_CHARACTERS = frozenset("`*_[]<>()-\u2013\u2014:")


def last_name(target: str) -> str:
    """`~package.module.Name` is written Name, as the rendered page shows it."""
    return target.rsplit(".", 1)[-1] if target.startswith("~") else target.lstrip("!.")


def remove_markup(text: str) -> str:
    if not MARKUP_CHARACTERS.isdisjoint(text):
        for pattern, replacement in MARKUP:
            text = pattern.sub(replacement, text)
    return " ".join(text.split())


SENTENCE_END = re.compile(
    r"(?:(?<=[.!?])|(?<=[.!?][)\"']))(?<!e\.g\.)(?<!i\.e\.)(?<!\bal\.)(?<!\bvs\.)(?<!\bcf\.)(?<!\b[A-Z]\.)"
    r"(?<!\bFig\.)(?<!\bEq\.)(?<!\bDr\.)(?<!\bNo\.)\s+(?=[\"'(]?[A-Z0-9])"
)


DANGLING = frozenset("a an the of to by as and or with in for from on at is are see that which be than if".split())


def split_sentences(paragraph: str) -> list[str]:
    """The sentences of one paragraph; a summary line that lacks its full stop is given one."""
    if paragraph[-1:].isalnum() and len(words := paragraph.split()) > 4 and words[-1] not in DANGLING:
        paragraph += "."
    return SENTENCE_END.split(paragraph)


CODE_CHARACTERS = frozenset("{}<>=|\\@#^~$*`[]%\ufffd")
CODE = re.compile(r"::|->|://|\(\)|\.\.\.|(?<!\w)--?\w|\w\(|[/:]\w*/|\bwww\.|,,|\w\.\w+\.\w")
UNWANTED = (
    *("copyright", "license ", "licensed ", "rights reserved", "without warrant", "permission is"),
    *("doctest", "arxiv", "see also "),
)
PLAIN_WORD = re.compile(
    r"[(\"']*(?:[A-Za-z][a-z]*|[A-Z]{2,6}s?|\d+)(?:['\u2019-][A-Za-z]+)*(?:[.,;:!?]?[)\"']+)?[.,;:!?]?$"
)
ONE_LETTER = re.compile(r"\W*[b-zB-HJ-Z]\W*$")
START = re.compile(
    r"[\"'(]?[A-Z][A-Za-z'-]*,? |[\"'(]?[A-Z][\w.'-]* (?:is|are|has|can|will|does|may|was|must|should)\b"
)
END = re.compile(r"\w[.!?][)\"']?$|\w[)\"'][.!?]$")


def reads_as_prose(sentence: str) -> bool:
    """Whether a sentence is one: it begins and ends as such, is balanced, and nearly all of its words are words."""
    words = sentence.split()
    if not MIN_SENTENCE_WORDS <= len(words) <= MAX_SENTENCE_WORDS:
        return False
    if not START.match(sentence) or not END.search(sentence):
        return False
    if sentence.count("(") != sentence.count(")") or sentence.count('"') % 2:
        return False
    odd = [word for word in words if not PLAIN_WORD.match(word)]
    num_letters = sum(len(word) < 4 and ONE_LETTER.match(word) is not None for word in words)
    if len(odd) > MAX_ODD_RATE * len(words) or num_letters > MAX_LETTER_RATE * len(words):
        return False
    strange = " ".join(odd)
    if not CODE_CHARACTERS.isdisjoint(strange) or CODE.search(strange):
        return False
    lowered = sentence.lower()
    return not any(phrase in lowered for phrase in UNWANTED)


def is_wordy(source: str) -> bool:
    """Whether enough of a file lies between triple quotes to be worth parsing, which is what takes the time."""
    quoted = source.replace("'''", '"""').split('"""')[1::2]
    if sum(map(len, quoted)) * 1000 < 3 * MIN_WORDS_PER_KILOBYTE * len(
        source
    ):  # cheaper than counting, and clear already
        return False
    return sum(len(text.split()) for text in quoted) * 1000 >= MIN_WORDS_PER_KILOBYTE * len(source)


def read_module(path: str) -> list[Paragraph]:
    """The prose of one Python file; none where it is not UTF-8 or does not parse (some .py files are templates)."""
    try:
        with open(path, encoding="utf-8") as file:
            source = file.read()
        if path.endswith("topics.py"):
            texts = read_topics(source)
        else:
            texts = read_docstrings(source) if is_wordy(source) else []
    except (SyntaxError, ValueError, RecursionError, OSError):
        return []
    return [paragraph for text in texts for paragraph in clean_docstring(text)]


def main() -> None:
    gc.disable()  # a syntax tree is many small objects without cycles: collecting costs a fifth of the time
    for path in json.load(sys.stdin):
        print(json.dumps(read_module(path)), flush=True)


if __name__ == "__main__":
    main()
