"""How good written texts are: BLEU, chrF, ROUGE-L, exact match; and which of them suits the data."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from everloop.data.text import choose_unit

Metric = Literal["bleu", "chrf", "rouge_l", "exact_match"]

# Scripts without spaces between words: a character counts as a word.
_WORD = re.compile(r"[\u0e00-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\w+")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_KANA = re.compile(r"[\u3040-\u30ff]")


def fitting_metric(targets: Sequence[str], copying: bool) -> tuple[Metric, str]:
    """The metric for such targets, and why: exact match where few answers come again and again, ROUGE-L for what is
    partly copied (summaries), else BLEU."""
    if len(set(targets)) <= len(targets) // 5:
        return "exact_match", f"{len(set(targets)):,} different targets in {len(targets):,} examples: answers"
    if copying:
        return "rouge_l", "targets that are partly copied: summaries"
    return "bleu", f"{len(set(targets)):,} different targets in {len(targets):,} examples: texts"


def text_scores(outputs: Sequence[str], references: Sequence[Sequence[str]], *, answers: bool) -> dict[str, float]:
    """exact_match: the share of outputs that are one of their references, whatever spaces stand around them. Unless
    they are answers, also BLEU and chrF over all outputs (0 to 100, as sacrebleu has them: Papineni et al. 2002,
    Popović 2015) and the mean of the F-measure of ROUGE-L (0 to 1, Lin 2004), the best over the references. Where all
    references begin with a kind and a colon ("animal mammal: water buffalo"), also kind_match: the share of outputs
    that begin with the kind of one of theirs."""
    pairs = list(zip(outputs, references, strict=True))
    exact = sum(output.strip() in {one.strip() for one in known} for output, known in pairs) / len(pairs)
    if answers:
        return {"exact_match": exact}
    streams = _streams(references)
    found = {
        "bleu": _bleu(references).corpus_score(list(outputs), streams).score,
        "chrf": _chrf().corpus_score(list(outputs), streams).score,
        "rouge_l": sum(max(_rouge_l(output, one) for one in known) for output, known in pairs) / len(pairs),
        "exact_match": exact,
    }
    if all(":" in one for known in references for one in known):
        same = sum(kind_of(output) in set(map(kind_of, known)) for output, known in pairs)
        found["kind_match"] = same / len(pairs)
    return found


def kind_of(text: str) -> str:
    """What stands before the first colon of a caption, true or written by a model."""
    return text.partition(":")[0].strip()


def signatures(outputs: Sequence[str], references: Sequence[Sequence[str]]) -> list[str]:
    """How BLEU and chrF were computed, in the words of sacrebleu (Post 2018), so that others can compare."""
    found = []
    for name, metric in (("BLEU", _bleu(references)), ("chrF", _chrf())):
        metric.corpus_score(list(outputs), _streams(references))
        found.append(f"{name} {metric.get_signature()}")
    return found


def _streams(references: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """The first reference of every output, the second ..., None where there are fewer."""
    most = max(map(len, references))
    return [[known[k] if k < len(known) else None for known in references] for k in range(most)]


def _bleu(references: Sequence[Sequence[str]]) -> Any:
    sacrebleu = _metrics_package("sacrebleu")
    return sacrebleu.BLEU(tokenize=_tokenizer([one for known in references for one in known]))


def _chrf() -> Any:
    return _metrics_package("sacrebleu").CHRF()


def _tokenizer(texts: Sequence[str]) -> str:
    """sacrebleu's for Chinese; characters for other scripts without spaces; else the usual one."""
    sample = "".join(texts[:2_000])
    if not sample.strip() or choose_unit([sample], purpose="classify")[0] != "chars":
        return "13a"
    return "zh" if _HAN.search(sample) and not _KANA.search(sample) else "char"


class _Words:
    """For ROUGE, whose own tokenizer knows the letters a to z only."""

    def tokenize(self, text: str) -> list[str]:
        return _WORD.findall(text.lower())


def _rouge_l(output: str, reference: str) -> float:
    scorer = _metrics_package("rouge_score.rouge_scorer")
    return scorer.RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, output)["rougeL"].fmeasure


def _metrics_package(name: str) -> Any:
    import importlib

    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        package = {"rouge_score": "rouge-score"}.get(name.split(".")[0], name)
        if error.name != name.split(".")[0]:
            raise
        raise ImportError(
            f"measuring written texts needs {package}: pip install 'everloop[metrics]'", name=error.name
        ) from None
