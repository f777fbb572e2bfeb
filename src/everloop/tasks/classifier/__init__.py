"""Many to one: the class of a sequence."""

from everloop.tasks.classifier.task import Classifier

__all__ = ["Classifier"]
