; push(self, x): what a stream calls with every chunk. self is an array that holds the record; $$name is a word's place
; in it (native.py). Where x is no array of a shape that fits, or somebody has the stream, nothing happens, and None
; comes back.

%array = type { i64, ptr, ptr, i32, ptr, ptr, ptr, ptr, i32 }

define ptr @push(ptr %self, ptr %x) {
entry:
  %shape = alloca [2 x i64]
  %record.at = getelementptr %array, ptr %self, i64 0, i32 $array_data
  %record = load ptr, ptr %record.at
  %keep = call ptr @word(ptr %record, i64 $Py_IncRef)
  %release = call ptr @word(ptr %record, i64 $Py_DecRef)
  %type.at = getelementptr %array, ptr %x, i64 0, i32 $array_type
  %type = load ptr, ptr %type.at
  %ndarray = call ptr @word(ptr %record, i64 $ndarray)
  %plain = icmp eq ptr %type, %ndarray
  br i1 %plain, label %shape.x, label %other

shape.x:
  %steps.x = call i64 @steps(ptr %record, ptr %x)
  %fits.x = icmp ne i64 %steps.x, 0
  br i1 %fits.x, label %numbers, label %other

numbers:
  %dtype.at = getelementptr %array, ptr %x, i64 0, i32 $array_dtype
  %flags.at = getelementptr %array, ptr %x, i64 0, i32 $array_flags
  %dtype.x = load ptr, ptr %dtype.at
  %flags = load i32, ptr %flags.at
  %dtype = call ptr @word(ptr %record, i64 $dtype)
  %same = icmp eq ptr %dtype.x, %dtype
  %bits = and i32 %flags, $GAPLESS
  %gapless = icmp eq i32 %bits, $GAPLESS
  %ready = and i1 %same, %gapless
  br i1 %ready, label %take, label %convert

take:
  call void %keep(ptr %x)
  br label %ours

convert:
  call void %keep(ptr %dtype)
  %from = call ptr @word(ptr %record, i64 $PyArray_FromArray)
  %converted = call ptr %from(ptr %x, ptr %dtype, i32 $CONVERTED)
  %unlike = icmp eq ptr %converted, null
  br i1 %unlike, label %raised, label %ours

; While numbers were converted, other threads may have run, and may have changed what x is.
ours:
  %in = phi ptr [ %x, %take ], [ %converted, %convert ]
  %steps = call i64 @steps(ptr %record, ptr %in)
  %fits = icmp ne i64 %steps, 0
  br i1 %fits, label %output, label %misfit

output:
  %axes.at = getelementptr %array, ptr %in, i64 0, i32 $array_axes
  %axes = load i32, ptr %axes.at
  %count = zext i32 %axes to i64
  %one = icmp eq i64 %steps, 1
  %one.call = getelementptr i64, ptr %record, i64 $one
  %several.call = getelementptr i64, ptr %record, i64 $several
  %call = select i1 %one, ptr %one.call, ptr %several.call
  %lengths.at = getelementptr %array, ptr %in, i64 0, i32 $array_lengths
  %lengths = load ptr, ptr %lengths.at
  %first = load i64, ptr %lengths
  store i64 %first, ptr %shape
  %last = sub i64 %count, 1
  %last.at = getelementptr i64, ptr %shape, i64 %last
  %width = call i64 @number(ptr %record, i64 $width)
  store i64 %width, ptr %last.at
  call void %keep(ptr %dtype)
  %new = call ptr @word(ptr %record, i64 $PyArray_NewFromDescr)
  %y = call ptr %new(ptr %ndarray, ptr %dtype, i32 %axes, ptr %shape, ptr null, ptr null, i32 0, ptr null)
  %no.memory = icmp eq ptr %y, null
  br i1 %no.memory, label %drop, label %made

made:
  %x.at = getelementptr %array, ptr %in, i64 0, i32 $array_data
  %x.data = load ptr, ptr %x.at
  %y.at = getelementptr %array, ptr %y, i64 0, i32 $array_data
  %y.data = load ptr, ptr %y.at
  %false = call ptr @word(ptr %record, i64 $Py_False)
  %held = call i64 @number(ptr %record, i64 $held)
  %long = icmp sgt i64 %steps, %held
  br i1 %long, label %share, label %hold

; A short run keeps the interpreter to itself: nobody else can take the stream, if nobody has it.
hold:
  %ask = call ptr @word(ptr %record, i64 $PyObject_CallNoArgs)
  %locked = call ptr @word(ptr %record, i64 $locked)
  %taken = call ptr %ask(ptr %locked)
  %taken.none = icmp eq ptr %taken, null
  br i1 %taken.none, label %failed, label %look

look:
  call void %release(ptr %taken)
  %free = icmp eq ptr %taken, %false
  br i1 %free, label %run, label %busy

run:
  call void @go(ptr %call, i64 %steps, ptr %x.data, ptr %y.data)
  br label %done

share:
  %ask.one = call ptr @word(ptr %record, i64 $PyObject_CallOneArg)
  %acquire = call ptr @word(ptr %record, i64 $acquire)
  %got = call ptr %ask.one(ptr %acquire, ptr %false)
  %got.none = icmp eq ptr %got, null
  br i1 %got.none, label %failed, label %owned

owned:
  call void %release(ptr %got)
  %not = icmp eq ptr %got, %false
  br i1 %not, label %busy, label %apart

apart:
  %leave = call ptr @word(ptr %record, i64 $PyEval_SaveThread)
  %return = call ptr @word(ptr %record, i64 $PyEval_RestoreThread)
  %thread = call ptr %leave()
  call void @go(ptr %call, i64 %steps, ptr %x.data, ptr %y.data)
  call void %return(ptr %thread)
  %ask.last = call ptr @word(ptr %record, i64 $PyObject_CallNoArgs)
  %unlock = call ptr @word(ptr %record, i64 $unlock)
  %over = call ptr %ask.last(ptr %unlock)
  %over.none = icmp eq ptr %over, null
  br i1 %over.none, label %failed, label %shared

shared:
  call void %release(ptr %over)
  br label %done

done:
  call void %release(ptr %in)
  ret ptr %y

busy:
  call void %release(ptr %y)
  br label %misfit

misfit:
  call void %release(ptr %in)
  br label %other

other:
  %Py_None = call ptr @word(ptr %record, i64 $Py_None)
  call void %keep(ptr %Py_None)
  ret ptr %Py_None

failed:
  call void %release(ptr %y)
  br label %drop

drop:
  call void %release(ptr %in)
  br label %raised

raised:
  ret ptr null
}

; How many steps an array is; 0 where its shape is none that is expected, or where there is no room for so many.
define internal i64 @steps(ptr %record, ptr %array) {
  %axes.at = getelementptr %array, ptr %array, i64 0, i32 $array_axes
  %axes = load i32, ptr %axes.at
  %count = zext i32 %axes to i64
  %lengths.at = getelementptr %array, ptr %array, i64 0, i32 $array_lengths
  %lengths = load ptr, ptr %lengths.at
  %usual = call i64 @number(ptr %record, i64 $axes)
  %features = call i64 @number(ptr %record, i64 $features)
  %single = icmp eq i64 %count, %usual
  br i1 %single, label %one, label %more

one:
  %first = load i64, ptr %lengths
  %first.usual = call i64 @number(ptr %record, i64 $first)
  %last = sub i64 %count, 1
  %width.at = getelementptr i64, ptr %lengths, i64 %last
  %width = load i64, ptr %width.at
  %first.fits = icmp eq i64 %first, %first.usual
  %width.fits = icmp eq i64 %width, %features
  %one.fits = and i1 %first.fits, %width.fits
  %one.steps = zext i1 %one.fits to i64
  ret i64 %one.steps

more:
  %two = icmp eq i64 %count, 2
  br i1 %two, label %several, label %none

several:
  %length = load i64, ptr %lengths
  %row.at = getelementptr i64, ptr %lengths, i64 1
  %row = load i64, ptr %row.at
  %row.fits = icmp eq i64 %row, %features
  %room = call i64 @number(ptr %record, i64 $room)
  %inside = icmp ule i64 %length, %room
  %several.fits = and i1 %row.fits, %inside
  %several.steps = select i1 %several.fits, i64 %length, i64 0
  ret i64 %several.steps

none:
  ret i64 0
}

define internal void @go(ptr %call, i64 %steps, ptr %x, ptr %y) alwaysinline {
  %x.at = call ptr @word(ptr %call, i64 $call_x)
  %y.at = call ptr @word(ptr %call, i64 $call_y)
  %steps.at = call ptr @word(ptr %call, i64 $call_steps)
  %words = call ptr @word(ptr %call, i64 $call_words)
  store ptr %x, ptr %x.at
  store ptr %y, ptr %y.at
  store i64 %steps, ptr %steps.at
  %kernel = call ptr @word(ptr %call, i64 $call_kernel)
  call void %kernel(ptr %words)
  ret void
}

define internal ptr @word(ptr %words, i64 %place) alwaysinline {
  %at = getelementptr i64, ptr %words, i64 %place
  %word = load ptr, ptr %at
  ret ptr %word
}

define internal i64 @number(ptr %words, i64 %place) alwaysinline {
  %at = getelementptr i64, ptr %words, i64 %place
  %number = load i64, ptr %at
  ret i64 %number
}
