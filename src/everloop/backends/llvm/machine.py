"""What the processor of this host offers to generated code: its instructions, and how wide and how many its
vector registers are.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

from llvmlite import binding

# What EVERLOOP_CPU may name, as the levels of the x86-64 psABI: LLVM uses everything that a level has, so the host
# must have all of it.
_BASELINE = ("sse", "sse2")
_AVX2 = (*_BASELINE, "avx", "avx2", "bmi", "bmi2", "f16c", "fma", "lzcnt", "movbe", "popcnt", "sse4.2", "xsave")
_AVX512 = (*_AVX2, "avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")
_LEVELS = {
    "baseline": ("x86-64", _BASELINE),
    "sse": ("x86-64", _BASELINE),
    "avx2": ("x86-64-v3", _AVX2),
    "avx512": ("x86-64-v4", _AVX512),
}


@dataclass(frozen=True)
class Machine:
    """A target of generated code, in LLVM's words. lanes: float32 values in one vector register. registers: how many
    vector registers there are.
    """

    triple: str
    cpu: str
    features: str
    lanes: int
    registers: int


def host() -> Machine:
    """This host, or the lesser one that the environment variable EVERLOOP_CPU names."""
    return _named(os.environ.get("EVERLOOP_CPU", ""))


@cache
def _named(name: str) -> Machine:
    found = binding.get_host_cpu_features()
    has = {feature for feature, present in found.items() if present}
    if not name:
        return _machine(binding.get_host_cpu_name(), found.flatten(), has)
    if name not in _LEVELS:
        raise ValueError(f"EVERLOOP_CPU is {name!r}; expected one of {', '.join(_LEVELS)}, or nothing for this host")
    if name == "baseline" and _processor() != "x86_64":
        return _machine("generic", "", set())
    cpu, needed = _LEVELS[name]
    missing = [feature for feature in needed if feature not in has]
    if missing:
        raise ValueError(f"EVERLOOP_CPU is {name!r}, but this host lacks {', '.join(missing)}; set a lesser one")
    return _machine(cpu, "", set(needed))


def _machine(cpu: str, features: str, has: set[str]) -> Machine:
    triple = binding.get_process_triple()
    if "avx512f" in has:
        # For most of these processors LLVM would otherwise cut a vector into halves, for their clock's sake.
        features = ",".join(filter(None, [features, "-prefer-256-bit"]))
        return Machine(triple, cpu, features, lanes=16, registers=32)
    if {"avx2", "fma"} <= has:
        return Machine(triple, cpu, features, lanes=8, registers=16)
    return Machine(triple, cpu, features, lanes=4, registers=32 if _processor() in ("aarch64", "arm64") else 16)


def _processor() -> str:
    return binding.get_process_triple().partition("-")[0]
