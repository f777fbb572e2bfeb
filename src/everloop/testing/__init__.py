"""The contracts of Everloop as functions, for its own tests and for packages that add to it.

A check raises AssertionError naming what differs, by how much and where; it returns nothing.
"""

from everloop.testing.cells import (
    AMPLIFIED,
    BFLOAT16,
    FINITE_DIFFERENCES,
    FINITE_STEP,
    FLOAT32,
    FUNCTION,
    KERNEL,
    SAME,
    TRIALS,
    Drawn,
    Tolerance,
    Trial,
    assert_close,
    assert_same_results,
    check_backend,
    check_cell,
    check_kernel,
    derived_gradient,
    evaluate_step,
    kernel_of,
)
from everloop.testing.tasks import check_codec, check_task

__all__ = [
    "AMPLIFIED",
    "BFLOAT16",
    "FINITE_DIFFERENCES",
    "FINITE_STEP",
    "FLOAT32",
    "FUNCTION",
    "KERNEL",
    "SAME",
    "TRIALS",
    "Drawn",
    "Tolerance",
    "Trial",
    "assert_close",
    "assert_same_results",
    "check_backend",
    "check_cell",
    "check_codec",
    "check_kernel",
    "check_task",
    "derived_gradient",
    "evaluate_step",
    "kernel_of",
]
