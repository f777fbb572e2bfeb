; The pool's threads. $$name is a field's place in its record, or a constant; pool.py puts them in and says how it works.
; What different threads write lies 128 bytes apart: two cache lines, which processors fetch together.

%gate = type { [128 x i8], [128 x i8], i64, i64, i64, i64, [96 x i8] }
%lane = type { i64, i64, i64, i64, ptr, ptr, i64, i64, [64 x i8] }
%job = type { i64, [120 x i8], %gate, [$MEMBERS x %lane] }
%pool = type { i64, i64, [112 x i8], i64, [120 x i8], i64, [120 x i8], i64, i64, i64, i64, i64, [88 x i8], [$KNOWN x i64],
  [$MEMBERS x %gate], [$JOBS x %job] }

@pool = internal global ptr null

declare ptr @calloc(i64, i64)
declare i32 @clock_gettime(i32, ptr)
declare i32 @pthread_attr_init(ptr)
declare i32 @pthread_attr_setstacksize(ptr, i64)
declare i32 @pthread_attr_destroy(ptr)
declare i32 @pthread_cond_init(ptr, ptr)
declare i32 @pthread_cond_signal(ptr)
declare i32 @pthread_cond_wait(ptr, ptr)
declare i32 @pthread_create(ptr, ptr, ptr, ptr)
declare i32 @pthread_detach(ptr)
declare i32 @pthread_mutex_init(ptr, ptr)
declare i32 @pthread_mutex_lock(ptr)
declare i32 @pthread_mutex_unlock(ptr)
declare i32 @pthread_sigmask(i32, ptr, ptr)
declare i32 @sched_yield()

define void @run(ptr %fn, ptr %arg, i64 %blocks, i64 %threads) {
  %members = call i64 @llvm.smin.i64(i64 %threads, i64 $MEMBERS)
  %lanes = call i64 @llvm.smin.i64(i64 %members, i64 %blocks)
  %single = icmp slt i64 %lanes, 2
  br i1 %single, label %alone, label %several
several:
  %pool = load ptr, ptr @pool
  %avoid = call i1 @avoided(ptr %pool)
  br i1 %avoid, label %alone, label %take
take:
  %number = call i64 @take(ptr %pool)
  %none = icmp eq i64 %number, $JOBS
  br i1 %none, label %alone, label %together
together:
  %job = getelementptr %pool, ptr %pool, i64 0, i32 $pool_jobs, i64 %number
  call void @grow(ptr %pool, i64 %members)
  call void @together(ptr %pool, ptr %job, ptr %fn, ptr %arg, i64 %blocks, i64 %lanes, i64 %members)
  call void @release(ptr %pool, i64 %number)
  ret void
alone:
  call void @alone(ptr %fn, ptr %arg, i64 %blocks)
  ret void
}

define i64 @workers() {
  %pool = load ptr, ptr @pool
  %workers.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_workers
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  ret i64 %workers
}

; A pool without workers, in place of the one there was.
define void @renew() {
entry:
  %size = ptrtoint ptr getelementptr (%pool, ptr null, i64 1) to i64
  %room = add i64 %size, 128
  %raw = call ptr @calloc(i64 1, i64 %room)
  %address = ptrtoint ptr %raw to i64
  %beyond = add i64 %address, 127
  %aligned = and i64 %beyond, -128
  %pool = inttoptr i64 %aligned to ptr
  br label %workers
workers:
  %w = phi i64 [ 0, %entry ], [ %w.next, %workers ]
  %gate = getelementptr %pool, ptr %pool, i64 0, i32 $pool_gates, i64 %w
  %number.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_number
  store i64 %w, ptr %number.at
  call void @build(ptr %gate)
  %w.next = add i64 %w, 1
  %w.more = icmp slt i64 %w.next, $MEMBERS
  br i1 %w.more, label %workers, label %jobs
jobs:
  %j = phi i64 [ 0, %workers ], [ %j.next, %jobs ]
  %caller = getelementptr %pool, ptr %pool, i64 0, i32 $pool_jobs, i64 %j, i32 $job_gate
  call void @build(ptr %caller)
  %j.next = add i64 %j, 1
  %j.more = icmp slt i64 %j.next, $JOBS
  br i1 %j.more, label %jobs, label %end
end:
  store ptr %pool, ptr @pool
  ret void
}

; ---- the caller

define internal void @alone(ptr %fn, ptr %arg, i64 %blocks) {
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

; Whether it is too early to share again after a loss.
define internal i1 @avoided(ptr %pool) {
  %until.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_until
  %until = load atomic i64, ptr %until.at monotonic, align 8
  %never = icmp eq i64 %until, 0
  br i1 %never, label %no, label %look
look:
  %now = call i64 @now()
  %early = icmp slt i64 %now, %until
  br i1 %early, label %yes, label %over
over:
  store atomic i64 0, ptr %until.at monotonic, align 8
  br label %no
yes:
  ret i1 true
no:
  ret i1 false
}

; The number of a free job, now taken; $JOBS if there is none.
define internal i64 @take(ptr %pool) {
entry:
  %taken.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_taken
  %first = load atomic i64, ptr %taken.at monotonic, align 8
  br label %try
try:
  %taken = phi i64 [ %first, %entry ], [ %now, %swap ]
  %free = xor i64 %taken, -1
  %lowest = call i64 @llvm.cttz.i64(i64 %free, i1 false)
  %full = icmp sge i64 %lowest, $JOBS
  br i1 %full, label %none, label %swap
swap:
  %bit = shl i64 1, %lowest
  %with = or i64 %taken, %bit
  %pair = cmpxchg ptr %taken.at, i64 %taken, i64 %with acquire monotonic
  %now = extractvalue { i64, i1 } %pair, 0
  %success = extractvalue { i64, i1 } %pair, 1
  br i1 %success, label %got, label %try
got:
  ret i64 %lowest
none:
  ret i64 $JOBS
}

define internal void @release(ptr %pool, i64 %number) {
  %taken.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_taken
  %bit = shl i64 1, %number
  %others = xor i64 %bit, -1
  atomicrmw and ptr %taken.at, i64 %others release
  ret void
}

define internal void @together(ptr %pool, ptr %job, ptr %fn, ptr %arg, i64 %blocks, i64 %lanes, i64 %threads) {
entry:
  %began = call i64 @now()
  call void @publish(ptr %pool, ptr %job, ptr %fn, ptr %arg, i64 %blocks, i64 %lanes, i64 %threads)
  %known.at = call ptr @known(ptr %pool, ptr %fn)
  %worth = call i1 @worth(ptr %pool, ptr %known.at, i64 %blocks, i64 %began)
  br i1 %worth, label %summon, label %work
summon:
  call void @summon(ptr %pool, i64 %lanes, i64 %threads)
  br label %work
work:
  %own = call i64 @work(ptr %pool, ptr %job, i64 0)
  %now = call i64 @now()
  %worked = sub i64 %now, %began
  %some = call i64 @llvm.smax.i64(i64 %own, i64 1)
  %block = udiv i64 %worked, %some
  %block.some = call i64 @llvm.smax.i64(i64 %block, i64 1)
  store atomic i64 %block.some, ptr %known.at monotonic, align 8
  %last.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_last
  store atomic i64 %now, ptr %last.at monotonic, align 8
  br label %check
check:
  %l = phi i64 [ 0, %work ], [ %l.next, %done ]
  %lane = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l
  %finished = call i1 @finished(ptr %lane)
  br i1 %finished, label %done, label %late
late:
  call void @wait(ptr %job, ptr %lane)
  br label %done
done:
  %l.next = add i64 %l, 1
  %more = icmp slt i64 %l.next, %lanes
  br i1 %more, label %check, label %end
end:
  ret void
}

; Where it is kept how long a block of a function takes; functions may share a place.
define internal ptr @known(ptr %pool, ptr %fn) {
  %address = ptrtoint ptr %fn to i64
  %line = lshr i64 %address, 4
  %place = urem i64 %line, $KNOWN
  %known.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_known, i64 %place
  ret ptr %known.at
}

; Whether to wake a worker: for a job that is long or unknown, or for the last of many with hardly a pause between.
define internal i1 @worth(ptr %pool, ptr %known.at, i64 %blocks, i64 %now) {
entry:
  %last.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_last
  %since.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_since
  %last = load atomic i64, ptr %last.at monotonic, align 8
  %before = load atomic i64, ptr %since.at monotonic, align 8
  %pause = sub i64 %now, %last
  %long = icmp sgt i64 %pause, $AWAKE
  br i1 %long, label %anew, label %weigh
anew:
  store atomic i64 %now, ptr %since.at monotonic, align 8
  br label %weigh
weigh:
  %since = phi i64 [ %before, %entry ], [ %now, %anew ]
  %known = load atomic i64, ptr %known.at monotonic, align 8
  %unknown = icmp eq i64 %known, 0
  %busy = sub i64 %now, %since
  %expected = mul i64 %known, %blocks
  %total = add i64 %busy, %expected
  %enough = icmp sge i64 %total, $WORTH
  %worth = or i1 %unknown, %enough
  ret i1 %worth
}

; A lane is open from the moment that its end is written; the other fields are there by then. Each tells all of the job,
; so that a worker fetches one line.
define internal void @publish(ptr %pool, ptr %job, ptr %fn, ptr %arg, i64 %blocks, i64 %lanes, i64 %threads) {
entry:
  %each = udiv i64 %blocks, %lanes
  %rest = urem i64 %blocks, %lanes
  br label %open
open:
  %l = phi i64 [ 0, %entry ], [ %l.next, %open ]
  %lane = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l
  %next.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_next
  %end.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_end
  %base.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_base
  %fn.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_fn
  %arg.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_arg
  %lanes.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_lanes
  %threads.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_threads
  %base = load atomic i64, ptr %next.at monotonic, align 8
  %longer = icmp slt i64 %l, %rest
  %one = zext i1 %longer to i64
  %count = add i64 %each, %one
  %end = add i64 %base, %count
  store atomic i64 %base, ptr %base.at monotonic, align 8
  store atomic ptr %fn, ptr %fn.at monotonic, align 8
  store atomic ptr %arg, ptr %arg.at monotonic, align 8
  store atomic i64 %lanes, ptr %lanes.at monotonic, align 8
  store atomic i64 %threads, ptr %threads.at monotonic, align 8
  store atomic i64 %end, ptr %end.at release, align 8
  %l.next = add i64 %l, 1
  %more = icmp slt i64 %l.next, %lanes
  br i1 %more, label %open, label %tell
tell:
  %latest.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_latest
  store atomic ptr %job, ptr %latest.at monotonic, align 8
  %published.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_published
  atomicrmw add ptr %published.at, i64 1 seq_cst
  ret void
}

define internal i1 @finished(ptr %lane) {
  %end.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_end
  %done.at = getelementptr %lane, ptr %lane, i64 0, i32 $lane_done
  %end = load atomic i64, ptr %end.at monotonic, align 8
  %done = load atomic i64, ptr %done.at seq_cst, align 8
  %finished = icmp eq i64 %done, %end
  ret i1 %finished
}

; Watches a lane for its end, then sleeps.
define internal void @wait(ptr %job, ptr %lane) noinline {
entry:
  %gate = getelementptr %job, ptr %job, i64 0, i32 $job_gate
  %waiting.at = getelementptr %job, ptr %job, i64 0, i32 $job_waiting
  %start = call i64 @now()
  %patience = add i64 %start, $WATCH
  br label %watch
watch:
  $PAUSE
  %finished = call i1 @finished(ptr %lane)
  br i1 %finished, label %end, label %clock
clock:
  %now = call i64 @now()
  %more = icmp slt i64 %now, %patience
  br i1 %more, label %watch, label %doze
doze:
  ; Either whoever ends the lane sees that somebody waits, or the caller sees the end.
  store atomic i64 %start, ptr %waiting.at seq_cst, align 8
  br label %check
check:
  %over = call i1 @finished(ptr %lane)
  br i1 %over, label %awake, label %sleep
sleep:
  call void @sleep(ptr %gate)
  br label %check
awake:
  store atomic i64 0, ptr %waiting.at monotonic, align 8
  br label %end
end:
  ret void
}

; ---- every member

; Does blocks of a job until none is left, the member's own lane first; tells how many.
define internal i64 @work(ptr %pool, ptr %job, i64 %member) {
entry:
  %own = call i64 @drain(ptr %pool, ptr %job, i64 %member, i64 %member)
  %lanes.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 0, i32 $lane_lanes
  %lanes = load atomic i64, ptr %lanes.at monotonic, align 8
  br label %pass
pass:
  %visited = phi i64 [ 0, %entry ], [ %visited.next, %lane ]
  %before = phi i64 [ %member, %entry ], [ %l, %lane ]
  %sum = phi i64 [ %own, %entry ], [ %sum.next, %lane ]
  %more = icmp slt i64 %visited, %lanes
  br i1 %more, label %lane, label %end
lane:
  %after = add i64 %before, 1
  %beyond = icmp sge i64 %after, %lanes
  %l = select i1 %beyond, i64 0, i64 %after
  %did = call i64 @drain(ptr %pool, ptr %job, i64 %l, i64 %member)
  %sum.next = add i64 %sum, %did
  %visited.next = add i64 %visited, 1
  br label %pass
end:
  ret i64 %sum
}

; Does blocks of one lane. What is read before a claim belongs to the job of that number if the claim succeeds: the
; caller writes nothing new before every number of the job has been claimed.
define internal i64 @drain(ptr %pool, ptr %job, i64 %l, i64 %member) {
entry:
  %fn.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_fn
  %arg.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_arg
  %lanes.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_lanes
  %threads.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_threads
  %waiting.at = getelementptr %job, ptr %job, i64 0, i32 $job_waiting
  %next.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_next
  %end.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_end
  %base.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_base
  %done.at = getelementptr %job, ptr %job, i64 0, i32 $job_lane, i64 %l, i32 $lane_done
  ; To read the line and then to write it would take two journeys between the cores.
  %is.own = icmp eq i64 %l, %member
  br i1 %is.own, label %fetch, label %look
fetch:
  call void @llvm.prefetch.p0(ptr %next.at, i32 1, i32 3, i32 1)
  br label %look
look:
  %did = phi i64 [ 0, %entry ], [ 0, %fetch ], [ %did, %claim ], [ %did.next, %report ], [ %did.next, %call ]
  %next = load atomic i64, ptr %next.at acquire, align 8
  %end = load atomic i64, ptr %end.at acquire, align 8
  %fn = load atomic ptr, ptr %fn.at monotonic, align 8
  %arg = load atomic ptr, ptr %arg.at monotonic, align 8
  %lanes = load atomic i64, ptr %lanes.at monotonic, align 8
  %threads = load atomic i64, ptr %threads.at monotonic, align 8
  %base = load atomic i64, ptr %base.at monotonic, align 8
  %open = icmp slt i64 %next, %end
  %invited = icmp slt i64 %member, %threads
  %may = and i1 %open, %invited
  br i1 %may, label %claim, label %leave
claim:
  %next.after = add i64 %next, 1
  %pair = cmpxchg ptr %next.at, i64 %next, i64 %next.after acq_rel monotonic
  %claimed = extractvalue { i64, i1 } %pair, 1
  br i1 %claimed, label %own, label %look
own:
  %is.worker = icmp ne i64 %member, 0
  %is.first = icmp eq i64 %did, 0
  %summons = and i1 %is.worker, %is.first
  br i1 %summons, label %summon, label %do
summon:
  call void @summon(ptr %pool, i64 %lanes, i64 %threads)
  call void @summon(ptr %pool, i64 %lanes, i64 %threads)
  br label %do
do:
  %k = sub i64 %next, %base
  %stride = mul i64 %k, %lanes
  %block = add i64 %l, %stride
  call void %fn(ptr %arg, i64 %block)
  br label %report
report:
  %did.next = add i64 %did, 1
  atomicrmw add ptr %done.at, i64 1 seq_cst
  %waiting = load atomic i64, ptr %waiting.at seq_cst, align 8
  %waits = icmp ne i64 %waiting, 0
  br i1 %waits, label %call, label %look
call:
  %gate = getelementptr %job, ptr %job, i64 0, i32 $job_gate
  call void @wake(ptr %gate)
  call void @confess(ptr %pool, i64 %member, i64 %waiting)
  br label %look
leave:
  ret i64 %did
}

; A worker that was waited for tells how much of that time it had no core: so long, many times over, jobs are done alone.
define internal void @confess(ptr %pool, i64 %member, i64 %since) noinline {
  %number = sub i64 %member, 1
  %gate = getelementptr %pool, ptr %pool, i64 0, i32 $pool_gates, i64 %number
  %wall.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_wall
  %core.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_core
  %wall.before = load i64, ptr %wall.at
  %core.before = load i64, ptr %core.at
  call void @mark(ptr %gate)
  %wall = load i64, ptr %wall.at
  %core = load i64, ptr %core.at
  %passed = sub i64 %wall, %wall.before
  %had = sub i64 %core, %core.before
  %without = sub i64 %passed, %had
  %waited = sub i64 %wall, %since
  %lost = call i64 @llvm.smin.i64(i64 %without, i64 %waited)
  %matters = icmp sgt i64 %lost, $WATCH
  br i1 %matters, label %avoid, label %end
avoid:
  %times = mul i64 %lost, $ALONE
  %alone = call i64 @llvm.smin.i64(i64 %times, i64 $ALONE_LIMIT)
  %until = add i64 %wall, %alone
  %until.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_until
  store atomic i64 %until, ptr %until.at monotonic, align 8
  br label %end
end:
  ret void
}

; The time, and the worker's time on a core.
define internal void @mark(ptr %gate) {
  %wall.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_wall
  %core.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_core
  %wall = call i64 @now()
  %core = call i64 @clock(i32 $CORE_CLOCK)
  store i64 %wall, ptr %wall.at
  store i64 %core, ptr %core.at
  ret void
}

; Wakes one worker if the workers that are awake are too few for the job. Each that comes wakes others in turn, so that
; the caller pays for one.
define internal void @summon(ptr %pool, i64 %lanes, i64 %threads) {
  %sleeping.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_sleeping
  %sleeping = load atomic i64, ptr %sleeping.at seq_cst, align 8
  %none = icmp eq i64 %sleeping, 0
  br i1 %none, label %end, label %count
count:
  %workers.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_workers
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %wanted = sub i64 %lanes, 1
  %invited = sub i64 %threads, 1
  %there = call i64 @llvm.smin.i64(i64 %workers, i64 %invited)
  %beyond = shl i64 -1, %there
  %mask = xor i64 %beyond, -1
  %asleep = and i64 %sleeping, %mask
  %sleepers = call i64 @llvm.ctpop.i64(i64 %asleep)
  %awake = sub i64 %there, %sleepers
  %few = icmp slt i64 %awake, %wanted
  %any = icmp ne i64 %asleep, 0
  %call = and i1 %few, %any
  br i1 %call, label %choose, label %end
choose:
  %w = call i64 @llvm.cttz.i64(i64 %asleep, i1 true)
  %bit = shl i64 1, %w
  %others = xor i64 %bit, -1
  %before = atomicrmw and ptr %sleeping.at, i64 %others seq_cst
  %was = and i64 %before, %bit
  %mine = icmp ne i64 %was, 0
  br i1 %mine, label %wake, label %end
wake:
  %gate = getelementptr %pool, ptr %pool, i64 0, i32 $pool_gates, i64 %w
  call void @wake(ptr %gate)
  br label %end
end:
  ret void
}

; ---- workers

; Starts workers until there are enough. A system that refuses a thread is not asked again.
define internal void @grow(ptr %pool, i64 %threads) {
entry:
  %workers.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_workers
  %growing.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_growing
  %enough = sub i64 %threads, 1
  %now = load atomic i64, ptr %workers.at monotonic, align 8
  %few = icmp slt i64 %now, %enough
  br i1 %few, label %lock, label %end
lock:
  %pair = cmpxchg ptr %growing.at, i64 0, i64 1 acquire monotonic
  %locked = extractvalue { i64, i1 } %pair, 1
  br i1 %locked, label %check, label %end
check:
  %workers = load atomic i64, ptr %workers.at monotonic, align 8
  %more = icmp slt i64 %workers, %enough
  br i1 %more, label %start, label %unlock
start:
  %gate = getelementptr %pool, ptr %pool, i64 0, i32 $pool_gates, i64 %workers
  %started = call i1 @start(ptr %gate)
  br i1 %started, label %count, label %end
count:
  %workers.next = add i64 %workers, 1
  store atomic i64 %workers.next, ptr %workers.at monotonic, align 8
  br label %check
unlock:
  store atomic i64 0, ptr %growing.at release, align 8
  br label %end
end:
  ret void
}

; A thread with the room of a main thread, that leaves signals to Python's threads. The records of the system's library
; are smaller than these everywhere.
define internal i1 @start(ptr %gate) noinline {
  %thread = alloca i64
  %attributes = alloca [256 x i8], align 16
  %masked = alloca [128 x i8], align 16
  %before = alloca [128 x i8], align 16
  call void @llvm.memset.p0.i64(ptr %masked, i8 0, i64 128, i1 false)
  store i64 $MASKED, ptr %masked
  call i32 @pthread_sigmask(i32 $SETMASK, ptr %masked, ptr %before)
  call i32 @pthread_attr_init(ptr %attributes)
  call i32 @pthread_attr_setstacksize(ptr %attributes, i64 $STACK)
  %refused = call i32 @pthread_create(ptr %thread, ptr %attributes, ptr @worker, ptr %gate)
  call i32 @pthread_attr_destroy(ptr %attributes)
  call i32 @pthread_sigmask(i32 $SETMASK, ptr %before, ptr null)
  %started = icmp eq i32 %refused, 0
  br i1 %started, label %detach, label %end
detach:
  %id = load ptr, ptr %thread
  call i32 @pthread_detach(ptr %id)
  br label %end
end:
  ret i1 %started
}

define internal ptr @worker(ptr %gate) {
entry:
  %pool = load ptr, ptr @pool
  %published.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_published
  %sleeping.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_sleeping
  %number.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_number
  %number = load i64, ptr %number.at
  %member = add i64 %number, 1
  %bit = shl i64 1, %number
  %others = xor i64 %bit, -1
  br label %begin
begin:
  call void @mark(ptr %gate)
  br label %fresh
fresh:
  %start = call i64 @now()
  %bedtime = add i64 %start, $AWAKE
  br label %look
look:
  %seen = load atomic i64, ptr %published.at acquire, align 8
  %did = call i64 @help(ptr %pool, i64 %member)
  %helped = icmp ne i64 %did, 0
  br i1 %helped, label %fresh, label %idle
idle:
  %looks = phi i64 [ 0, %look ], [ %looks.next, %rest ], [ 0, %yield ]
  $PAUSE
  %published = load atomic i64, ptr %published.at monotonic, align 8
  %news = icmp ne i64 %published, %seen
  br i1 %news, label %look, label %rest
rest:
  %looks.next = add i64 %looks, 1
  %often = icmp eq i64 %looks.next, $LOOKS
  br i1 %often, label %yield, label %idle
yield:
  ; The core is for whoever has work: another process, or the caller itself.
  call i32 @sched_yield()
  call void @mark(ptr %gate)
  %now = call i64 @now()
  %late = icmp sge i64 %now, %bedtime
  br i1 %late, label %doze, label %idle
doze:
  ; Either a publisher sees this worker asleep, or the worker sees what was published.
  atomicrmw or ptr %sleeping.at, i64 %bit seq_cst
  %last = load atomic i64, ptr %published.at seq_cst, align 8
  %missed = icmp ne i64 %last, %seen
  br i1 %missed, label %rise, label %sleep
rise:
  atomicrmw and ptr %sleeping.at, i64 %others seq_cst
  br label %look
sleep:
  call void @sleep(ptr %gate)
  br label %begin
}

; Works on the latest job, or if there is nothing to do on all; tells how many blocks were done.
define internal i64 @help(ptr %pool, i64 %member) {
entry:
  %latest.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_latest
  %latest = load atomic ptr, ptr %latest.at monotonic, align 8
  %never = icmp eq ptr %latest, null
  br i1 %never, label %all, label %first
first:
  %quick = call i64 @work(ptr %pool, ptr %latest, i64 %member)
  %none.quick = icmp eq i64 %quick, 0
  br i1 %none.quick, label %all, label %end.quick
end.quick:
  ret i64 %quick
all:
  %taken.at = getelementptr %pool, ptr %pool, i64 0, i32 $pool_taken
  %taken = load atomic i64, ptr %taken.at acquire, align 8
  br label %check
check:
  %left = phi i64 [ %taken, %all ], [ %left.next, %visit ]
  %sum = phi i64 [ 0, %all ], [ %sum.next, %visit ]
  %none = icmp eq i64 %left, 0
  br i1 %none, label %end, label %visit
visit:
  %number = call i64 @llvm.cttz.i64(i64 %left, i1 true)
  %job = getelementptr %pool, ptr %pool, i64 0, i32 $pool_jobs, i64 %number
  %did = call i64 @work(ptr %pool, ptr %job, i64 %member)
  %sum.next = add i64 %sum, %did
  %below = sub i64 %left, 1
  %left.next = and i64 %left, %below
  br label %check
end:
  ret i64 %sum
}

; ---- sleep, and time

define internal void @build(ptr %gate) {
  %mutex = getelementptr %gate, ptr %gate, i64 0, i32 $gate_mutex
  %condition = getelementptr %gate, ptr %gate, i64 0, i32 $gate_condition
  call i32 @pthread_mutex_init(ptr %mutex, ptr null)
  call i32 @pthread_cond_init(ptr %condition, ptr null)
  ret void
}

; Until somebody wakes whoever sleeps here, or at once if somebody has since the last time.
define internal void @sleep(ptr %gate) noinline {
entry:
  %mutex = getelementptr %gate, ptr %gate, i64 0, i32 $gate_mutex
  %condition = getelementptr %gate, ptr %gate, i64 0, i32 $gate_condition
  %called.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_called
  call i32 @pthread_mutex_lock(ptr %mutex)
  br label %check
check:
  %called = load i64, ptr %called.at
  %is.called = icmp ne i64 %called, 0
  br i1 %is.called, label %rise, label %wait
wait:
  call i32 @pthread_cond_wait(ptr %condition, ptr %mutex)
  br label %check
rise:
  store i64 0, ptr %called.at
  call i32 @pthread_mutex_unlock(ptr %mutex)
  ret void
}

define internal void @wake(ptr %gate) noinline {
  %mutex = getelementptr %gate, ptr %gate, i64 0, i32 $gate_mutex
  %condition = getelementptr %gate, ptr %gate, i64 0, i32 $gate_condition
  %called.at = getelementptr %gate, ptr %gate, i64 0, i32 $gate_called
  call i32 @pthread_mutex_lock(ptr %mutex)
  store i64 1, ptr %called.at
  call i32 @pthread_mutex_unlock(ptr %mutex)
  call i32 @pthread_cond_signal(ptr %condition)
  ret void
}

define internal i64 @now() {
  %now = call i64 @clock(i32 $WALL_CLOCK)
  ret i64 %now
}

; Nanoseconds.
define internal i64 @clock(i32 %clock) {
  %time = alloca { i64, i64 }
  call i32 @clock_gettime(i32 %clock, ptr %time)
  %seconds = load i64, ptr %time
  %fraction.at = getelementptr { i64, i64 }, ptr %time, i64 0, i32 1
  %fraction = load i64, ptr %fraction.at
  %whole = mul i64 %seconds, 1000000000
  %now = add i64 %whole, %fraction
  ret i64 %now
}
