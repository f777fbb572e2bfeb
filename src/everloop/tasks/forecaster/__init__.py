"""Many to many, ahead: what comes next in a series."""

from everloop.tasks.forecaster.task import Forecaster

__all__ = ["Forecaster"]
