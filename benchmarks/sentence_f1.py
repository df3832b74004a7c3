"""Measures the sentence segmenters on treebanks: `python benchmarks/sentence_f1.py FILE.conllu[.gz] ...`"""

import gzip
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from corpora.sentences import PunktSegmenter, RuleSegmenter, Segmenter  # noqa: E402


@dataclass(kw_only=True)
class Paragraph:
    """Raw text rebuilt from a treebank, and where its sentences end."""

    text: str = ""
    ends: set[int] = field(default_factory=set)


def read_paragraphs(path: Path) -> Iterator[Paragraph]:
    """Join `# text` lines up to each `# newpar` or `# newdoc`, by a space unless the last token has SpaceAfter=No."""
    opener = gzip.open if path.suffix == ".gz" else open
    paragraph, separator = Paragraph(), ""
    with opener(path, "rt", encoding="utf-8") as lines:
        for line in lines:
            line = line.rstrip("\n")
            if line.startswith(("# newpar", "# newdoc")) and paragraph.text:
                yield paragraph
                paragraph, separator = Paragraph(), ""
            elif line.startswith("# text ="):
                paragraph.text += separator + line.removeprefix("# text =").strip()
                paragraph.ends.add(len(paragraph.text))
            elif line[:1].isdigit():
                separator = "" if "SpaceAfter=No" in line.rpartition("\t")[2] else " "
    if paragraph.text:
        yield paragraph


def print_scores(segmenter: Segmenter, paragraphs: list[Paragraph]) -> None:
    """Count every sentence end, those at the ends of paragraphs too; `inside` leaves those out."""
    began = time.perf_counter()
    found = [{end for _, end in segmenter.split(paragraph.text)} for paragraph in paragraphs]
    seconds = time.perf_counter() - began
    megabytes = sum(len(paragraph.text.encode()) for paragraph in paragraphs) / 1e6
    for label, skipped in (("all", 0), ("inside", 1)):
        gold = sum(len(p.ends) - skipped for p in paragraphs)
        predicted = sum(len(ends) - skipped for ends in found)
        right = sum(len(p.ends & ends) - skipped for p, ends in zip(paragraphs, found, strict=True))
        precision, recall = right / max(predicted, 1), right / max(gold, 1)
        f1 = 2 * right / max(predicted + gold, 1)
        print(f"{segmenter.name:10} {label:7} precision {precision:.4f}  recall {recall:.4f}  F1 {f1:.4f}", end="  ")
        print(f"({gold} ends in {len(paragraphs)} paragraphs, {megabytes / seconds:.1f} MB/s)")


def main() -> None:
    if len(sys.argv) < 2:
        sys.exit("usage: python benchmarks/sentence_f1.py FILE.conllu[.gz] ...")
    paragraphs = [paragraph for name in sys.argv[1:] for paragraph in read_paragraphs(Path(name))]
    print_scores(RuleSegmenter("en"), paragraphs)
    print_scores(PunktSegmenter(paragraph.text for paragraph in paragraphs), paragraphs)


if __name__ == "__main__":
    main()
