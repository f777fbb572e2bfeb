"""Many to many, out of step: translation, summaries, captions, answers."""

from everloop.tasks.seq2seq.task import Seq2Seq

__all__ = ["Seq2Seq"]
