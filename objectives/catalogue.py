"""The catalogue: what each objective and generator is, read off its class, its docstring and its source."""

import ast
import dataclasses
import inspect
import io
import re
import sys
import textwrap
import tokenize
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import Objective
from .heads import Head

COMMON = {  # of fields that have no words of their own beside them
    "weight": "of its loss",
    "mask_rate": "share of the tokens that are selected",
    "mask_token_rate": "of these, the share shown as [MASK]",
    "random_token_rate": "of these, the share shown as a random token",
    "strategy": "what is selected: tokens, words, ngrams, spans or pmi (collocations)",
    "count": "how many: exact (BERT), bernoulli (RoBERTa in `transformers`) or probabilistic (fairseq)",
    "permute_rate": "share of the tokens that change places",
    "replace_rate": "share of the tokens that are replaced",
    "noise_rate": "share of the tokens that are replaced by noise",
    "shuffle_rate": "share of the tokens that change places",
    "asked": "which tokens are asked: all, or the selected",
    "min_sentences": "of a passage",
    "num_sentences": "of a passage",
    "within": "what a passage may not go beyond: document or paragraph",
    "pooling": "what is asked: cls ([CLS]), or segments (the mean vectors of both texts, compared)",
    "whole_word": "the word's label for each of its pieces, or each piece's own",
    "copy_weight": "of the loss of telling which tokens were left as they were",
    "first_decay": "of the teacher's moving average when the run starts",
    "last_decay": "and when it ends",
    "beta": "the distance from which on the smooth L1 loss is straight",
    "depth_rate": "of the encoder's layers",
    "temperature": "of the distribution that is drawn from",
    "sharing": "of the word table with the encoder: none, hard or gdes",
    "num_clusters": "of tokens, by their contexts",
}
# What names an original at every token, whatever share of the text is corrupted.
_EVERY_TOKEN = ("all_tokens_mlm", "causal_lm", "tsdae", "retromae")
_EVERY_PROPOSAL = ("electric", "multi_choice_cloze")
_PARTICLES = "(?:(?:Di|De|Del|El|La|Le|Van|de|van|von) )*"
_CITATION = re.compile(
    rf"(?P<authors>{_PARTICLES}[A-Z][\w'’-]+(?: et al\.| and (?:[A-Z]\. ?)*[A-Z][\w'’-]+)?)"
    r"(?:, | \()(?P<year>(?:19|20)\d\d[a-z]?)\b"
)


@dataclass(frozen=True, kw_only=True)
class Option:
    """One field of a plug-in."""

    name: str
    type: str
    default: str
    meaning: str


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One line of the catalogue, and what stands behind it."""

    name: str
    family: str
    summary: str  # the first sentence of its docstring
    asked: str  # its targets with what their values mean
    head: str
    paper: str
    url: str
    cost: float  # per token, of mlm's
    generator: str  # the one it needs, "any", or nothing
    details: str  # the rest of its docstring
    needs: str  # of a passage
    options: tuple[Option, ...]


@dataclass(frozen=True, kw_only=True)
class Size:
    """What the costs are for: an encoder's layers and width, and the rows that it reads."""

    layers: int = 4
    width: int = 128
    vocabulary: int = 8192
    length: int = 128

    def one_pass(self, width_rate: float = 1.0) -> float:
        """Return the multiplications of a token's way through the encoder, or one `width_rate` as wide.

        A layer of the presets has matrices of 10 D^2 entries (attention 4, gated MLP 6), and two products of a row of
        queries with L keys, then values.
        """
        width = self.width * width_rate
        return self.layers * (10 * width**2 + 2 * self.length * width)

    def name_token(self, width_rate: float = 1.0) -> float:
        """Return the multiplications of naming one token: a transform, then a product with the word table."""
        width = self.width * width_rate
        return width * self.width + width * self.vocabulary


def describe_objective(name: str, objective: type[Objective], family: str = "", size: Size | None = None) -> Entry:
    """Return what the catalogue says of an objective."""
    summary, details = split_docstring(objective)
    paper, url = find_paper(objective)
    generator = ""
    if objective.uses_generator:
        generator = objective.generator or "any"
    return Entry(
        name=name,
        family=family,
        summary=summary,
        asked=describe_targets(objective),
        head=", ".join(describe_heads(objective)),
        paper=paper,
        url=url,
        cost=cost_of(objective, size or Size()),
        generator=generator,
        details=details,
        needs=_needs_of(objective),
        options=read_options(objective),
    )


def read_catalogue(families: Mapping[str, Mapping[str, type[Objective]]]) -> list[Entry]:
    """Return an entry for each objective, family by family, in the order of the table."""
    return [
        describe_objective(name, objective, family)
        for family, members in families.items()
        for name, objective in members.items()
    ]


def split_docstring(plugin: type) -> tuple[str, str]:
    """Return the first sentence without its sources, and the rest as it stands."""
    text = inspect.getdoc(plugin) or ""
    first, _, rest = text.partition("\n\n")
    first = " ".join(first.split())
    level = re.sub(r"\([^()]*\)", lambda found: "_" * len(found[0]), first)  # full stops in brackets end nothing
    end = re.search(r"(?<!al)\.(?: (?=[A-Z`])|$)", level)
    sentence, more = (first[: end.start()], first[end.end() :]) if end else (first, "")
    sentence = re.sub(r" \([^()]*\b(?:19|20)\d\d[a-z]?\b[^()]*\)", "", sentence)
    return sentence.rstrip(". "), "\n\n".join(filter(None, [more, rest]))


def find_paper(plugin: type) -> tuple[str, str]:
    """Return the first source with an address in the docstring, as `Devlin et al., 2019`, and the address.

    Without any address, the first source.
    """
    text = " ".join((inspect.getdoc(plugin) or "").split())
    found = list(_CITATION.finditer(text))
    for citation, after in zip(found, [*found[1:], None], strict=False):
        url = re.search(r"https?://[^\s),]+", text[citation.start() : after.start() if after else len(text)])
        if url:
            return f"{citation['authors']}, {citation['year']}", url[0].rstrip(".:;")
    return (f"{found[0]['authors']}, {found[0]['year']}", "") if found else ("", "")


def describe_targets(objective: type[Objective]) -> str:
    """Return `is_replaced: original, replaced`; of many classes their number, of none what the value is."""
    parts = []
    for target, labels in objective.labels.items():
        if not labels:
            parts.append(target)
        elif len(labels) <= 4:
            parts.append(f"{target}: {', '.join(labels)}")
        else:
            parts.append(f"{target}: {len(labels)} classes")
    return "; ".join(parts)


def describe_heads(objective: type[Objective]) -> list[str]:
    """Return the kinds of head that `build_head` makes: `masked LM` of MaskedLMHead."""
    return [_words_of(head.__name__.removesuffix("Head")) for head in _heads_of(objective.build_head, objective)]


def _words_of(name: str) -> str:
    """Return `masked LM` of MaskedLM."""
    words = re.findall(r"[A-Z]+(?![a-z])|[A-Z][a-z0-9]*", name)
    return " ".join(word if word.isupper() and len(word) > 1 else word.lower() for word in words)


def _heads_of(thing: Any, owner: type) -> list[type[Head]]:
    """Return the classes of heads that a piece of source names, in the order in which it does."""
    space = vars(sys.modules[getattr(thing, "__module__", owner.__module__)])
    names = re.findall(r"\b[A-Z]\w*\b", _source_of(thing))
    found = (space.get(name) for name in dict.fromkeys(names))
    return [each for each in found if isinstance(each, type) and issubclass(each, Head) and each is not Head]


def _source_of(thing: Any) -> str:
    try:
        return inspect.getsource(thing)
    except (OSError, TypeError):  # made in a console, or frozen
        return ""


def _head_sources(objective: type[Objective]) -> str:
    """Return the source of all heads that an objective builds, those that they are made of and derive from too."""
    pending, seen = _heads_of(objective.build_head, objective), {}
    while pending:
        head = pending.pop()
        for base in head.__mro__:
            if issubclass(base, Head) and base is not Head and base not in seen:
                seen[base] = _source_of(base)
                pending += _heads_of(base, base)
    return "\n".join(seen.values())


def names_tokens(objective: type[Objective]) -> bool:
    """Say whether a head of this objective chooses among the words of the vocabulary."""
    return "vocab_size" in _head_sources(objective)


def cost_of(objective: type[Objective], size: Size) -> float:
    """Return the multiplications for each token of the text, of mlm's.

    Counted are: the encoder, once for each view that it reads; a teacher, a third for its pass forward and none back;
    a learned generator of the default size, a quarter of the width; and a product with the word table for each token
    that is named. A head's other layers are left out.
    """
    total = len(objective.reads) * size.one_pass()
    if "run_network(" in _head_sources(objective):
        total += size.one_pass() / 3
    defaults = {field.name: field.default for field in dataclasses.fields(objective)}
    rates = [rate for name, rate in defaults.items() if name.endswith("_rate") and isinstance(rate, float)]
    share = 1.0 if objective.name in _EVERY_TOKEN or not rates else rates[0]
    if names_tokens(objective):
        total += share * size.name_token()
    total += _generator_cost(objective, rates[0] if rates else 0.15, size)
    return total / (size.one_pass() + 0.15 * size.name_token())


def _generator_cost(objective: type[Objective], rate: float, size: Size) -> float:
    """Return the multiplications of a masked LM of a quarter of the width; generators that look up cost nothing."""
    generator = objective.generator or "masked_lm"
    if not objective.uses_generator or not generator.startswith("masked_lm"):
        return 0.0
    asked = 1.0 if objective.name in _EVERY_PROPOSAL else rate
    towers = 2 if "towers=two" in generator else 1
    return towers * size.one_pass(0.25) + asked * size.name_token(0.25)


def _needs_of(objective: type[Objective]) -> str:
    try:
        return objective().needs or ""
    except (TypeError, ValueError):  # an option without a default
        return ""


def read_options(plugin: type) -> tuple[Option, ...]:
    """Return the fields of a plug-in with their defaults, and what the source says beside each."""
    meanings: dict[str, str] = {}
    for base in reversed(plugin.__mro__):
        if dataclasses.is_dataclass(base):
            meanings |= _read_comments(base)
    options = []
    for field in dataclasses.fields(plugin):
        default = "" if field.default is dataclasses.MISSING else str(field.default)
        kind = field.type if isinstance(field.type, str) else getattr(field.type, "__name__", str(field.type))
        meaning = meanings.get(field.name) or _mention(plugin, field.name) or COMMON.get(field.name, "")
        options.append(Option(name=field.name, type=str(kind), default=default, meaning=meaning))
    own = [option for option in options if option.name != "weight"]
    return tuple(own + [option for option in options if option.name == "weight"])


def _read_comments(plugin: type) -> dict[str, str]:
    """Return what stands in a comment at the end of a field's line, or as a string beneath it."""
    source = textwrap.dedent(_source_of(plugin))
    if not source:
        return {}
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    meanings = {}
    (node,) = ast.parse(source).body
    assert isinstance(node, ast.ClassDef)
    for field, after in zip(node.body, [*node.body[1:], None], strict=True):
        if not isinstance(field, ast.AnnAssign) or not isinstance(field.target, ast.Name):
            continue
        text = comments.get(field.end_lineno or 0, "")
        match after:
            case ast.Expr(value=ast.Constant(value=str(words))):
                text = text or " ".join(words.split())
        if text:
            meanings[field.target.id] = text
    return meanings


def _mention(plugin: type, name: str) -> str:
    """Return the first sentence of the docstring that names a field in backquotes."""
    text = " ".join((inspect.getdoc(plugin) or "").split())
    for sentence in re.split(r"(?<!al)\. (?=[A-Z`])", text):
        if re.search(rf"`{name}[`=]", sentence):
            return sentence.rstrip(".")
    return ""


def write_markdown(entries: list[Entry]) -> str:
    """Return the README's table: a line for each objective, under the name of its family."""
    lines = ["| name | what is to be learned | target | head | paper | cost |", "|---|---|---|---|---|--:|"]
    family = ""
    for entry in entries:
        if entry.family != family:
            family = entry.family
            lines.append(f"| *{family}* | | | | | |")
        paper = f"[{entry.paper}]({entry.url})" if entry.url else entry.paper
        asked = "; ".join(re.sub(r"^(\w+)", r"`\1`", part) for part in entry.asked.split("; "))
        lines.append(f"| `{entry.name}` | {entry.summary} | {asked} | {entry.head} | {paper} | {entry.cost:.2f} |")
    return "\n".join(lines) + "\n"
