"""Cutting text into sentences: by rules (the default), or by Punkt trained on the user's own text."""

import re
from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

from .errors import UserError

Spans = list[tuple[int, int]]

PUNKT_TRAINING_CHARACTERS = (
    8_000_000  # Punkt learns at about 0.5 MB/s, and its abbreviations are found long before this
)

_STOPS = ".!?\u2026\u203c\u2047\u2048\u2049\u061f\u06d4\u0964\u0965\u1362"  # with Arabic, Devanagari, Ethiopic
_CJK_STOPS = "\u3002\uff01\uff1f\uff61"  # these end a sentence without white space
_LINE_ENDS = "\n\r\u2028\u2029"
_CLOSERS = re.escape("\"'\u201d\u2019\u00bb\u203a)]}*_\u300d\u300f\uff09\u3011\u300b")
_OPENERS = re.escape(
    "\"'\u201c\u201d\u2018\u2019\u201e\u201a\u00ab\u00bb\u2039\u203a([{\u00bf\u00a1*_\u300c\u300e\uff08\u3010\u300a-\u2013\u2014"
)
_EMOTICON = r"[ ]?[:;=]['-]?[()DPp]++(?=\s|\Z)"
_FRENCH_CLOSER = "[ \u00a0\u202f][\u00bb\u203a]"
_CJK_CONTINUATION = "\u3068\u3063\u3001\uff0c"  # after a quotation: "... he said"; after a comma

# One pass decides where a sentence may end. Every quantifier is possessive and a run of stops can be entered only at
# its first stop, so that the time is linear whatever the text: "....x" repeated, a megabyte of quotes, no end at all.
# The pattern begins with one plain set, because only then does `re` skip through the text at full speed.
_CANDIDATE = re.compile(
    rf"""[{_STOPS}{_CJK_STOPS}{_LINE_ENDS}](?:
      (?<=[{_STOPS}])(?<![{_STOPS}].)[{_STOPS}]*+(?P<close>[{_CLOSERS}]*+(?:{_FRENCH_CLOSER}|{_EMOTICON})?+)(?P<space>\s++)
        (?=[{_OPENERS}]*+(?P<next>[^\s{_OPENERS}]?))
    | (?<=[{_CJK_STOPS}])[{_CJK_STOPS}]*+[{_CLOSERS}]*+(?P<cjk_space>\s*+)(?![{_CJK_CONTINUATION}])
    | (?<=[{_LINE_ENDS}])(?P<line>\s*+)
    )""",
    re.VERBOSE | re.DOTALL,
)
_LINE_END = re.compile(rf"[{_LINE_ENDS}]")
_LAST_WORD = re.compile(r"[^\s\"'“”‘’«»()\[\]{}/—–]*\Z")
_FIRST_WORD = re.compile(r"[^\W\d_]+")
_LAST_WORD_REACH = 24  # no abbreviation is longer; a bounded look back keeps the time linear

# Before a name or a number: the sentence never ends here.
_TITLES = {
    "en": """mr mrs ms messrs dr prof st mt gen col maj lt capt cmdr adm sgt cpl rev fr hon pres gov sen rep amb supt
        vs e.g i.e cf viz ca approx fig figs eq eqs sec vol vols pp ed eds op ft nos art arts ch trans al v nr
        jan feb mar apr jun jul aug sept sep oct nov dec""",
    "it": """sig sigg sig.ra sig.na dott dott.ssa dr prof prof.ssa avv ing arch geom rag on sen mons don s ss sant
        art artt pag pagg p pp cap capp fig figg vol voll n nn nr cfr es p.es tel ca par lett d.p.r gen col cap""",
    "de": """hr fr dr prof st nr bzw vgl z.b z d.h d u.a u s.o s.u v.a ca ggf evtl abb bd bde hrsg inkl max min
        str tel kap art abs sog gest geb jh jr dipl ing mr mrs jan feb mär apr jun jul aug sept okt nov dez
        mo di mi do sa so""",
    "fr": """m mm mme mmes mlle mlles dr pr prof me mgr st ste sts cf p.ex p pp art fig vol n no chap env av apr éd
        trad tél janv févr avr juil sept oct nov déc""",
    "es": """sr sra srta sres dr dra d da dña prof ing lic arq gral cnel cap pág págs p pp art arts fig vol núm no cf
        p.ej ej av avda tel aprox ud uds vd vds""",
}
# These end a sentence as often as not: it ends here only before a word that often starts one.
_ENDINGS = {
    "en": """inc corp co ltd llc jr sr bros etc a.m p.m u.s u.k u.n u.s.a e.u d.c b.c a.d ph.d m.d b.a m.a
        mass calif ave blvd no p est dept univ""",
    "it": "ecc s.p.a s.r.l a.c d.c u.s.a jr",
    "de": "usw etc u.s.w gmbh co u.s.a a.d u.ä",
    "fr": "etc s.a j.-c u.s.a",
    "es": "etc s.a a.c d.c ee.uu u.s.a ltda jr",
}
_STARTERS = {
    "en": """the a an this that these those he she it they we i you his her its their our my your in on at by for from
        with as if when while after before since although though however but and or so then there here what who why how
        where which one some many most all both each another other no not to under during according also it's i'm""",
    "it": """il lo la i gli le l un uno una egli ella esso essa essi lui lei loro noi voi io questo questa questi queste
        quello quella quelli in nel nella a al alla con per da dal di del dopo prima quando se ma e non anche
        come che chi""",
    "de": """der die das den dem ein eine einen er sie es wir ihr ich dieser diese dieses in im am auf mit nach vor bei
        von zu für aber und oder wenn als da so dann doch auch nicht was wer wie wo hier""",
    "fr": """le la les l un une des il elle ils elles nous vous je on ce cette ces cet son sa ses leur en dans à au aux
        avec pour par sur de du mais et ou si quand après avant comme que qui ne c d""",
    "es": """el la los las un una unos unas él ella ellos ellas nosotros yo este esta estos estas ese esa su sus en a al
        con por para de del pero y o si cuando después antes como que quien no también se lo""",
}
_WITHOUT_RULES = ("any", "ja", "zh")  # stops only: no abbreviations are known
LANGUAGES = (*_TITLES, *_WITHOUT_RULES)


class Segmenter(Protocol):
    """Finds sentences. Lossless: the spans are in order and not empty, and everything outside them is white space."""

    name: str

    def split(self, text: str) -> Spans:
        """Return (start, end) of each sentence. A sentence never crosses the end of a line: a line is a paragraph."""
        ...

    def as_dict(self) -> dict[str, Any]:
        """Return what `read_segmenter` makes an equal one of, in another process: plain values, for JSON."""
        ...


class RuleSegmenter:
    """Ends a sentence at a stop, unless what stands around it tells of an abbreviation, initial, number or quote.

    Linear in the length of the text, whatever the text. Where a language has no rules use `any`: stops alone.
    """

    def __init__(self, language: str = "en") -> None:
        if language not in LANGUAGES:
            raise UserError(
                f"language {language!r} has no sentence rules; known: {', '.join(LANGUAGES)} "
                "(`any` goes by stops alone), or use the segmenter `punkt`, which learns from your text"
            )
        self.name = f"rules-{language}"
        self._language = language
        self._titles = frozenset(_TITLES.get(language, "").split())
        self._endings = frozenset(_ENDINGS.get(language, "").split())
        self._starters = frozenset(_STARTERS.get(language, "").split())
        self._has_ordinals = language == "de"  # "am 3. Oktober"

    def split(self, text: str) -> Spans:
        spans: Spans = []
        start = len(text) - len(text.lstrip())
        for match in _CANDIDATE.finditer(text, start):
            kind = match.lastgroup
            if kind == "line":
                _append_trimmed(spans, text, start, match.start())
            elif kind == "cjk_space":
                spans.append((start, match.start("cjk_space")))
            elif self._ends_sentence(text, start, match):
                spans.append((start, match.end("close")))
            else:
                continue
            start = match.end()
        _append_trimmed(spans, text, start, len(text))
        return spans

    def as_dict(self) -> dict[str, Any]:
        return {"language": self._language}

    def _ends_sentence(self, text: str, start: int, match: re.Match[str]) -> bool:
        close, space, following = match.group("close", "space", "next")
        if space != " " and _LINE_END.search(space) or not following:
            return True
        stops = text[match.start() : match.start("close")]
        at = match.start()
        if following.islower():
            return not close and self._ends_before_lower_case(stops, self._word_before(text, start, at))
        if stops != "." or close[:1] in (")", "]", "}"):
            return True
        word = self._word_before(text, start, at)
        return self._ends_after(word, text, match, is_first=at - len(word) == start)

    def _ends_before_lower_case(self, stops: str, word: str) -> bool:
        """Some writers start sentences in lower case: believe it after a long plain word, not after an ellipsis."""
        if stops == ".":
            return len(word) > 3 and word.isalpha() and word.islower() and word not in self._titles
        return stops[0] in "!?" and stops != "!"  # "Yahoo! is"

    def _word_before(self, text: str, start: int, at: int) -> str:
        found = _LAST_WORD.search(text, max(start, at - _LAST_WORD_REACH), at)
        return found.group() if found else ""

    def _ends_after(self, word: str, text: str, match: re.Match[str], is_first: bool) -> bool:
        """Whether the full stop after `word` ends the sentence, given that what follows is not in lower case."""
        if not word:
            return True
        if is_first and len(word) <= 3 and (word.isdigit() or len(word) == 1):
            return False  # "1. Mix the flour": a label, not a sentence
        if word.isdigit():
            return not (self._has_ordinals and len(word) <= 2)
        lower = word.lower()
        if lower in self._titles:
            return False
        is_initial = len(word) == 1 and word.isupper() or (len(word) <= 7 and len(word) > 2 and word[-2] == ".")
        if is_initial or lower in self._endings:
            first = _FIRST_WORD.match(text, match.start("next"))
            return first is not None and first.group().lower() in self._starters
        return True


class PunktSegmenter:
    """Punkt (Kiss and Strunk, 2006, https://aclanthology.org/J06-4003/): learns abbreviations from the text itself.

    Nothing is downloaded. Better than the rules where a text has abbreviations of its own, and about ten times slower.
    """

    name = "punkt"

    def __init__(self, texts: Iterator[str]) -> None:
        punkt = _import_punkt()
        trainer = punkt.PunktTrainer()
        seen = 0
        for text in texts:
            trainer.train(text, finalize=False)
            seen += len(text)
            if seen >= PUNKT_TRAINING_CHARACTERS:
                break
        if not seen:
            raise UserError("the segmenter `punkt` learns from the corpus, and the corpus has no text; use `rules`")
        trainer.finalize_training()
        self._tokenizer = punkt.PunktSentenceTokenizer(trainer.get_params())

    def split(self, text: str) -> Spans:
        spans: Spans = []
        line_start = 0
        for line in _LINE_END.split(text):
            # Only the ends are taken from Punkt, so that no character can be lost between its spans.
            start = 0
            for _, end in self._tokenizer.span_tokenize(line):
                _append_trimmed(spans, text, line_start + start, line_start + end)
                start = end
            _append_trimmed(spans, text, line_start + start, line_start + len(line))
            line_start += len(line) + 1
        return spans

    def as_dict(self) -> dict[str, Any]:
        learned = self._tokenizer._params
        return {
            "abbrev_types": sorted(learned.abbrev_types),
            "collocations": sorted(map(list, learned.collocations)),
            "sent_starters": sorted(learned.sent_starters),
            "ortho_context": learned.ortho_context,
        }

    @classmethod
    def from_dict(cls, fields: dict[str, Any]) -> Self:
        """Make one that has learned what another has."""
        punkt = _import_punkt()
        learned = punkt.PunktParameters()
        learned.abbrev_types = set(fields["abbrev_types"])
        learned.collocations = set(map(tuple, fields["collocations"]))
        learned.sent_starters = set(fields["sent_starters"])
        learned.ortho_context.update(fields["ortho_context"])
        segmenter = cls.__new__(cls)
        segmenter._tokenizer = punkt.PunktSentenceTokenizer(learned)
        return segmenter


def build_segmenter(name: str, language: str, texts: Callable[[], Iterator[str]]) -> Segmenter:
    """Make the segmenter called `name`; `texts` is called, and read, only by one that learns from the corpus."""
    if name == "rules":
        return RuleSegmenter(language)
    if name == "punkt":
        return PunktSegmenter(texts())
    raise UserError(f"segmenter {name!r} is unknown; known: rules, punkt")


def read_segmenter(fields: dict[str, Any]) -> Segmenter:
    """Make the segmenter whose `as_dict` this is."""
    return RuleSegmenter(fields["language"]) if "language" in fields else PunktSegmenter.from_dict(fields)


def _append_trimmed(spans: Spans, text: str, start: int, end: int) -> None:
    sentence = text[start:end]
    stripped = sentence.strip()
    if stripped:
        start += len(sentence) - len(sentence.lstrip())
        spans.append((start, start + len(stripped)))


def _import_punkt() -> Any:
    try:
        from nltk.tokenize import punkt
    except ImportError as error:
        raise UserError("the segmenter `punkt` needs nltk: pip install -e '.[punkt]', or use `rules`") from error
    return punkt
