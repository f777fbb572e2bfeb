"""Our own threads, for machine code that is called from machine code. Their code is in pool.ll.

A job is a function and a number of blocks. Whoever calls `run` works on its job too, and waits for nobody but those
who have claimed a block and not finished it: if all other threads sleep or all other cores are busy, the caller
does everything itself. There is no barrier.

Every member of a job (the caller, and up to threads - 1 workers) has a lane of blocks: l, l + lanes, l + 2 lanes ...
A member claims from its own lane first, then from those of others. So calls that follow each other with the same
blocks give each member the same ones, whose weights are still in its cache, as long as nobody falls behind. With
workers that stay awake for a while after a job, this serves a sequence that is split by its units as well: its
leader calls `run` at every product of every step.

No block is claimed twice and none after its job has ended, because claims are numbers that never come again: a lane
counts its blocks on and on from job to job, and a job is the part of the numbers between the lane's old end and its
new one. A late worker finds the count changed and goes away.

Waking a thread costs its waker several microseconds, in a virtual machine up to 15, and it comes some 40 later. So a
sleeping worker is woken for a job that is long, as far as is known of its function, or after many jobs with hardly a
pause between.

When a caller had to wait because some other process had the worker's core, jobs are done alone for a time in
proportion to what was lost, so that losses stay a small part of the whole.

Where there are no POSIX threads (Windows), `run` calls every block itself.
"""

from __future__ import annotations

import ctypes
import os
import platform
import signal
import threading
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from string import Template

from llvmlite import binding

from everloop.backends.llvm.machine import host

# So many members can a job have, and so many jobs can be in flight; a caller beyond does its job alone.
MEMBERS = 64
JOBS = 32

# Nanoseconds that a worker stays awake without a job: about what its waking costs caller and job together. After so
# many looks for a job, less than 10 us, it lets others have the core.
AWAKE = 50_000
LOOKS = 128

# Nanoseconds of work that are worth waking a worker; and of how many functions it is remembered how long they take.
WORTH = 100_000
KNOWN = 64

# Nanoseconds that a caller watches for the end of a worker's block before it sleeps and leaves its core to others,
# one of which may be that worker.
WATCH = 20_000

# For how many times the time that was lost to a worker without a core jobs are done alone, and no longer than that.
ALONE = 16
ALONE_LIMIT = 1_000_000_000

# Bytes of a worker's stack; some systems give threads much less than the caller's has.
STACK = 8 << 20

_lock = threading.Lock()


def run_address() -> int:
    """The address of `void run(ptr fn, ptr arg, i64 blocks, i64 threads)`.

    It calls `void fn(ptr arg, i64 block)` once for every block, on the calling thread and on up to threads - 1 workers,
    and returns when all blocks are done. What it writes and what the blocks write is seen as in one thread. It can be
    called from any number of threads at once, with or without the interpreter's lock, and from within a block.
    """
    return _address("run")


def run(fn: int, arg: int, blocks: int, threads: int) -> None:
    """`run` from Python; fn and arg are addresses."""
    _run()(fn, arg, blocks, threads)


def workers() -> int:
    """How many workers there are, asleep or not."""
    return ctypes.CFUNCTYPE(ctypes.c_int64)(_address("workers"))()


@cache
def _run() -> Callable[[int, int, int, int], None]:
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64)
    return kind(run_address())


def _address(name: str) -> int:
    with _lock:
        return _code().get_function_address(name)


@cache
def _code() -> binding.ExecutionEngine:
    machine = host()
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_triple(machine.triple).create_target_machine(
        cpu=machine.cpu, features=machine.features, opt=3, jit=True
    )
    module = binding.parse_assembly(_source(), binding.create_context())
    module.verify()
    builder = binding.create_pass_builder(target, binding.create_pipeline_tuning_options(speed_level=2))
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, target)
    engine.finalize_object()
    # Workers run in this code until the process has ended: it must outlive everything that Python frees.
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(engine))
    if _has_threads():
        renew = ctypes.CFUNCTYPE(None)(engine.get_function_address("renew"))
        renew()
        # In a forked child there are no workers, and what they left half done is of no use.
        os.register_at_fork(after_in_child=renew)
    return engine


def _has_threads() -> bool:
    return os.name == "posix" and ctypes.sizeof(ctypes.c_void_p) == 8


def _source() -> str:
    if not _has_threads():
        return _SERIAL
    # What a fault raises must reach the thread that it is in.
    faults = {signal.SIGILL, signal.SIGTRAP, signal.SIGABRT, signal.SIGBUS, signal.SIGFPE, signal.SIGSEGV}
    return Template(Path(__file__).with_suffix(".ll").read_text(encoding="utf-8")).substitute(
        {f"{record}_{name}": place for record, names in _RECORDS.items() for place, name in enumerate(names.split())},
        MEMBERS=MEMBERS,
        JOBS=JOBS,
        AWAKE=AWAKE,
        WATCH=WATCH,
        ALONE=ALONE,
        ALONE_LIMIT=ALONE_LIMIT,
        STACK=STACK,
        LOOKS=LOOKS,
        WORTH=WORTH,
        KNOWN=KNOWN,
        WALL_CLOCK=time.CLOCK_MONOTONIC,
        CORE_CLOCK=time.CLOCK_THREAD_CPUTIME_ID,
        SETMASK=int(signal.SIG_SETMASK),
        MASKED=-1 - sum(1 << (fault - 1) for fault in faults),
        PAUSE=_PAUSES.get(platform.machine().lower(), ""),
    )


# What tells the processor that a loop waits.
_PAUSES = {
    "x86_64": "call void @llvm.x86.sse2.pause()",
    "aarch64": "call void @llvm.aarch64.isb(i32 15)",
    "arm64": "call void @llvm.aarch64.isb(i32 15)",
}

# Fields of the records of pool.ll, in their order; _ is room.
_RECORDS = {
    "gate": "mutex condition called number wall core",
    "lane": "next end base done fn arg lanes threads",
    "job": "waiting _ gate lane",
    "pool": "published latest _ sleeping _ taken _ workers growing until last since _ known gates jobs",
}

_SERIAL = """
define void @run(ptr %fn, ptr %arg, i64 %blocks, i64 %threads) {
entry:
  %any = icmp sgt i64 %blocks, 0
  br i1 %any, label %each, label %end
each:
  %block = phi i64 [ 0, %entry ], [ %next, %each ]
  call void %fn(ptr %arg, i64 %block)
  %next = add i64 %block, 1
  %more = icmp slt i64 %next, %blocks
  br i1 %more, label %each, label %end
end:
  ret void
}

define i64 @workers() {
  ret i64 0
}
"""
