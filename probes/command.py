"""`python -m probes FOLDER...`: its options; the suite; the table, results.json and the page."""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from corpora.console import Parser
from corpora.errors import UserError

from .members import list_members
from .progress import Progress
from .published_data import PublishedData, choose_suite, read_discoeval_names

_DESCRIPTION = """\
Ask what frozen encoders know. Every folder is a `transformers` folder, of this
project or of anyone's, or a name on the hub; every probe is a classifier on
its vectors, of every layer, beside what an untrained encoder and no encoder at
all reach. Out come a table, results.json and a page with figures.

examples:
  python -m probes runs/mlm runs/rtd
  python -m probes runs/mlm bert-base-uncased --corpus articles.txt.gz
  python -m probes runs/rtd --suite treebank --treebank en_ewt-ud-*.conllu
  python -m probes runs/rtd --probes bigram_shift,sentence_ordering --mdl
  python -m probes runs/rtd --senteval bigram_shift.txt past_present.txt
  python -m probes runs/rtd --suite raw --discoeval bso=wiki/bso sp=wiki/sp
  python -m probes --group mlm='runs/mlm-*' --group rtd='runs/rtd-*'
  python -m probes runs/* --group_by objective

other things to ask, each with a --help of its own:
  python -m probes minimal-pairs   which of two sentences a model prefers
  python -m probes finetune        train an encoder on labelled text
  python -m probes explain         what a head says of one text, token by token
"""
_EPILOG = """\
The text should be text that no encoder has read: by default it is the held-out
documents of the first run. Scores of one checkpoint are about that checkpoint;
give 5 seeds or more of each objective (--group) to speak about objectives.
Exit status: 0 done; 1 done, but an encoder could not be probed and is named;
2 a mistake in what was asked for; 4 a disk that can't be written.
"""


def build_parser() -> Parser:
    """Return the parser of the probing suite."""
    parser = Parser(
        prog="python -m probes",
        usage="python -m probes FOLDER [FOLDER ...] [--OPTION VALUE ...]",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        add_help=False,
    )
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="encoders: folders, or names on the hub")
    asked = parser.add_argument_group("What is asked")
    default = "default: raw; all with --treebank; published where nothing but published data is named"
    asked.add_argument("--suite", choices=("raw", "treebank", "all", "published"), help=default)
    text = "text to make probes of (default: what the first run held out, else the built-in text)"
    asked.add_argument("--corpus", metavar="FILE", help=text)
    asked.add_argument("--treebank", nargs="+", metavar="FILE", help="CoNLL-U: train, dev and test, by their names")
    senteval = "published data, asked beside the suite: SentEval's files, each named after its task"
    asked.add_argument("--senteval", nargs="+", default=[], metavar="FILE", help=senteval)
    discoeval = "the same: DiscoEval's folders of train.txt, valid.txt, test.txt; tasks bso, sp, dc, ssp"
    asked.add_argument("--discoeval", nargs="+", default=[], metavar="TASK=FOLDER", help=discoeval)
    asked.add_argument("--probes", metavar="NAMES", help="of the suite only these, with commas between them")
    asked.add_argument(
        "--size", type=int, metavar="INT", help="most items of a probe (default: 4000, and 15000 of a treebank)"
    )
    asked.add_argument("--language", default="en", metavar="NAME", help="of the text's sentence ends (default: en)")
    how = parser.add_argument_group("How")
    how.add_argument("--kind", choices=("linear", "mlp"), default="linear", help="the classifier (default: linear)")
    how.add_argument("--pooling", choices=("mean", "cls"), default="mean", help="a text's vector (default: mean)")
    how.add_argument("--mdl", action="store_true", help="code lengths too, of every layer (Voita and Titov, 2020)")
    twins = "untrained twins of each architecture (default: 1)"
    how.add_argument("--seeds", type=int, default=1, metavar="INT", help=twins)
    how.add_argument("--group", action="append", metavar="NAME=GLOB", help="encoders that are seeds of one thing")
    how.add_argument("--group_by", choices=("objective",), help="group the runs by what trained them (run.json)")
    rest = parser.add_argument_group("The rest")
    where = "where results.json and report.html go (default: probed)"
    rest.add_argument("--out", default="probed", metavar="DIR", help=where)
    rest.add_argument("--cache", metavar="DIR", help="keep the encoders' vectors there, for the next time")
    rest.add_argument("--threads", type=int, metavar="INT", help="of the processor (default: as torch chooses)")
    rest.add_argument("--help", "-h", action="help", help="print this text, and stop")
    return parser


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Read the command line. Raises UserError on what can't be understood, or can't be meant."""
    options = build_parser().read(argv)
    if not options.folders and not options.group:
        raise UserError("no encoder was named; give folders, as in `python -m probes runs/mlm runs/rtd`")
    published = PublishedData(senteval=tuple(options.senteval), discoeval=read_discoeval_names(options.discoeval))
    options.published = published
    others = bool(options.corpus or options.probes)
    options.suite = options.suite or choose_suite(published, treebank=bool(options.treebank), others=others)
    if options.suite in ("treebank", "all") and not options.treebank:
        raise UserError(f"--suite {options.suite} wants --treebank FILES, of CoNLL-U")
    if options.suite == "published" and not published:
        raise UserError("--suite published wants --senteval FILES or --discoeval TASK=FOLDER")
    for name, least in {"size": 100, "seeds": 1, "threads": 1}.items():
        value = getattr(options, name)
        if value is not None and value < least:
            raise UserError(f"--{name} is {value}; it must be at least {least}")
    if published and (problems := published.list_problems()):
        raise UserError("\n".join(problems))
    return options


def describe_command(argv: Sequence[str]) -> str:
    """Return the command with the last name of each path that exists: a page may be shown to others."""
    return shlex.join(["python", "-m", "probes", *map(_without_folders, argv)])


def _without_folders(word: str) -> str:
    name, equals, place = word.rpartition("=")  # --group NAME=GLOB, --discoeval TASK=FOLDER
    is_path = "/" in place and (Path(place).exists() or place.startswith("/"))
    return f"{name}{equals}{Path(place).name}" if is_path else word


def main(argv: Sequence[str]) -> int:
    """Run the suite and return its exit status. Raises UserError."""
    options = parse(argv)
    members = list_members(options.folders, options.group or [], options.group_by)
    import torch  # takes seconds, for which mistakes need not wait
    from rich.console import Console

    from .build import build_suite
    from .report import WIDTH, print_table, write_page
    from .results import write_results
    from .suite import HowToProbe, run_suite

    if options.threads:
        torch.set_num_threads(options.threads)
    progress = Progress(sys.stderr)
    built = build_suite(
        names=options.probes,
        suite=options.suite,
        corpus=options.corpus,
        treebank=options.treebank or [],
        published=options.published,
        folders=[member.location for member in members],
        size=options.size,
        language=options.language,
        progress=progress,
    )
    how = HowToProbe(
        kind=options.kind,
        pooling=options.pooling,
        code_lengths=options.mdl,
        twins=options.seeds,
        cache=Path(options.cache) if options.cache else None,
    )
    results = run_suite(members, built, how, command=describe_command(argv), progress=progress)
    out = Path(options.out)
    write_results(out / "results.json", results)
    write_page(out / "report.html", results)
    print_table(results, Console(width=None if sys.stdout.isatty() else WIDTH))
    print(f"\n{out / 'report.html'}\n{out / 'results.json'}")
    return 1 if results.failed else 0
