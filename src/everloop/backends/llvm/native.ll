; push(self, x): what a stream calls with every chunk. self is an array that holds the record; $$name is a word's place
; in it (native.py). Nothing is touched, and None comes back, where x is no array that can be taken as it is.

%array = type { i64, ptr, ptr, i32, ptr, ptr, ptr, ptr, i32 }

define ptr @push(ptr %self, ptr %x) {
entry:
  %shape.y = alloca [2 x i64]
  %record.at = getelementptr %array, ptr %self, i64 0, i32 $array_data
  %record = load ptr, ptr %record.at
  %type.at = getelementptr %array, ptr %x, i64 0, i32 $array_type
  %type = load ptr, ptr %type.at
  %ndarray = call ptr @word(ptr %record, i64 $ndarray)
  %plain = icmp eq ptr %type, %ndarray
  br i1 %plain, label %numbers, label %other

numbers:
  %dtype.at = getelementptr %array, ptr %x, i64 0, i32 $array_dtype
  %flags.at = getelementptr %array, ptr %x, i64 0, i32 $array_flags
  %x.dtype = load ptr, ptr %dtype.at
  %flags = load i32, ptr %flags.at
  %dtype = call ptr @word(ptr %record, i64 $dtype)
  %same = icmp eq ptr %x.dtype, %dtype
  %gapless = and i32 %flags, $GAPLESS
  %laid = icmp eq i32 %gapless, $GAPLESS
  %ours = and i1 %same, %laid
  br i1 %ours, label %shape, label %other

shape:
  %axes.at = getelementptr %array, ptr %x, i64 0, i32 $array_axes
  %lengths.at = getelementptr %array, ptr %x, i64 0, i32 $array_lengths
  %axes = load i32, ptr %axes.at
  %count = zext i32 %axes to i64
  %lengths = load ptr, ptr %lengths.at
  %usual = call i64 @number(ptr %record, i64 $axes)
  %features = call i64 @number(ptr %record, i64 $features)
  %last = sub i64 %count, 1
  %single = icmp eq i64 %count, %usual
  br i1 %single, label %one, label %more

one:
  %first = load i64, ptr %lengths
  %first.usual = call i64 @number(ptr %record, i64 $first)
  %width.at = getelementptr i64, ptr %lengths, i64 %last
  %width = load i64, ptr %width.at
  %first.fits = icmp eq i64 %first, %first.usual
  %width.fits = icmp eq i64 %width, %features
  %one.fits = and i1 %first.fits, %width.fits
  %one.call = getelementptr i64, ptr %record, i64 $one
  br i1 %one.fits, label %output, label %other

more:
  %two = icmp eq i64 %count, 2
  br i1 %two, label %several, label %other

several:
  ; No room for several steps: no such chunk fits.
  %length = load i64, ptr %lengths
  %row.at = getelementptr i64, ptr %lengths, i64 1
  %row = load i64, ptr %row.at
  %row.fits = icmp eq i64 %row, %features
  %room = call i64 @number(ptr %record, i64 $room)
  %before = sub i64 %length, 1
  %inside = icmp ult i64 %before, %room
  %several.fits = and i1 %row.fits, %inside
  %several.call = getelementptr i64, ptr %record, i64 $several
  br i1 %several.fits, label %output, label %other

output:
  %steps = phi i64 [ 1, %one ], [ %length, %several ]
  %call = phi ptr [ %one.call, %one ], [ %several.call, %several ]
  %begin = load i64, ptr %lengths
  store i64 %begin, ptr %shape.y
  %end = getelementptr i64, ptr %shape.y, i64 %last
  %width.y = call i64 @number(ptr %record, i64 $width)
  store i64 %width.y, ptr %end
  %retain = call ptr @word(ptr %record, i64 $Py_IncRef)
  %release = call ptr @word(ptr %record, i64 $Py_DecRef)
  call void %retain(ptr %dtype)
  %make = call ptr @word(ptr %record, i64 $PyArray_NewFromDescr)
  %y = call ptr %make(ptr %ndarray, ptr %dtype, i32 %axes, ptr %shape.y, ptr null, ptr null, i32 0, ptr null)
  %none = icmp eq ptr %y, null
  br i1 %none, label %raised, label %made

made:
  %x.at = getelementptr %array, ptr %x, i64 0, i32 $array_data
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
  call void @go(ptr %record, ptr %call, i64 %steps, ptr %x.data, ptr %y.data)
  ret ptr %y

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
  call void @go(ptr %record, ptr %call, i64 %steps, ptr %x.data, ptr %y.data)
  call void %return(ptr %thread)
  %ask.last = call ptr @word(ptr %record, i64 $PyObject_CallNoArgs)
  %unlock = call ptr @word(ptr %record, i64 $unlock)
  %over = call ptr %ask.last(ptr %unlock)
  %over.none = icmp eq ptr %over, null
  br i1 %over.none, label %failed, label %done

done:
  call void %release(ptr %over)
  ret ptr %y

busy:
  call void %release(ptr %y)
  br label %other

other:
  %Py_None = call ptr @word(ptr %record, i64 $Py_None)
  %keep = call ptr @word(ptr %record, i64 $Py_IncRef)
  call void %keep(ptr %Py_None)
  ret ptr %Py_None

failed:
  call void %release(ptr %y)
  br label %raised

raised:
  ret ptr null
}

define internal void @go(ptr %record, ptr %call, i64 %steps, ptr %x, ptr %y) alwaysinline {
  %x.at = call ptr @word(ptr %call, i64 $call_x)
  %y.at = call ptr @word(ptr %call, i64 $call_y)
  %steps.at = call ptr @word(ptr %call, i64 $call_steps)
  %words = call ptr @word(ptr %call, i64 $call_words)
  store ptr %x, ptr %x.at
  store ptr %y, ptr %y.at
  store i64 %steps, ptr %steps.at
  %kernel = call ptr @word(ptr %record, i64 $kernel)
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
