"""Folders of examples: parts that are split already, one subfolder per class, files of a modality."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from everloop.data import codecs
from everloop.data._asked import Asked
from everloop.data._say import count
from everloop.data.examples import PARTS, Examples, joined
from everloop.data.reading.tables import BadRows
from everloop.data.reading.text_files import plain_newlines, read_text

# Subfolders that hold examples without labels, as IMDb's does.
_UNLABELLED = {"unsup", "unlabeled", "unlabelled"}


def read_folder(folder: Path, name: str, asked: Asked, read_path: Callable[[Path, str, Asked], Examples]) -> Examples:
    """read_path: what reads a file or folder inside."""
    visible = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    for module in codecs.modules().values():
        reader = getattr(module, "read_folder", None)
        found = reader(folder, name, asked) if reader is not None else None
        if found is not None:
            return found
    parts = [(path, part) for path in visible if (part := _part_of(path))]
    if {"train", "test"} <= {part for _, part in parts}:
        return _of_parts(parts, len(visible) - len(parts), name, asked, read_path)
    asked.refuse_columns(f"{name} is a folder")
    classes = [path for path in visible if path.is_dir()]
    if classes:
        return _of_classes(folder, name, classes, len(visible) - len(classes), asked)
    found = _of_files(visible, name, asked)
    if found is not None:
        return found
    raise ValueError(
        f"{name} has no subfolders; expected one subfolder of text files per class, "
        f"as in {name}/positive/1.txt (or point at one file)"
    )


def _part_of(path: Path) -> str | None:
    """`train`, `en-ud-dev.conllu.gz`: the one part that the name speaks of."""
    words = {PARTS[word] for word in re.split(r"[-_. ]", path.name.lower()) if word in PARTS}
    return words.pop() if len(words) == 1 else None


def _of_parts(
    parts: list[tuple[Path, str]],
    others: int,
    name: str,
    asked: Asked,
    read_path: Callable[[Path, str, Asked], Examples],
) -> Examples:
    several = []
    for path, part in parts:
        examples = read_path(path, f"{name}/{path.name}", asked)
        several.append(replace(examples, parts=[part] * len(examples)))
    kinds = {one.modality for one in several}
    if len(kinds) > 1:
        raise ValueError(f"{name}: its parts hold {' and '.join(sorted(kinds))}; expected one modality")
    told = ", ".join(f"{path.name} ({part}, {len(one):,})" for (path, part), one in zip(parts, several, strict=True))
    notes = [f"split as it comes: {told}"]
    if others:
        notes.append(f"{count(others, 'entry').replace('entrys', 'entries')} beside them left out")
    return joined(several, name, notes)


def _of_classes(folder: Path, name: str, classes: list[Path], loose: int, asked: Asked) -> Examples:
    """One subfolder per class, of texts or of files of one modality."""
    bad = BadRows(name, asked.bad_rows, "file")
    notes: list[str] = []
    labelled: list[tuple[Path, str]] = []
    for class_folder in classes:
        files = _visible_files(class_folder)
        if class_folder.name.lower() in _UNLABELLED:
            notes.append(f'the folder "{class_folder.name}" left out: {count(len(files), "file")} without labels')
        elif not files:
            notes.append(f'the folder "{class_folder.name}" holds no files: no such class')
        else:
            labelled += [(file, class_folder.name) for file in files]
    if not labelled:
        raise ValueError(f"{name}: its subfolders hold no files; expected text files in one subfolder per class")
    if loose:
        notes.append(f"{count(loose, 'file')} beside the class folders left out")
    modality = codecs.by_extension(labelled[0][0].suffix.lower()) or "text"
    if asked.modality != "auto" and asked.modality != modality:
        raise ValueError(f"{name}: modality={asked.modality!r} came; its classes hold files of {modality}")
    inputs: list[object] = []
    targets: list[str] = []
    rows: list[int] = []
    for row, (file, label) in enumerate(labelled, start=1):
        try:
            inputs.append(_one(file, modality, asked))
        except ValueError as error:
            bad.add(file.relative_to(folder).as_posix(), str(error))
            continue
        targets.append(label)
        rows.append(row)
    labels = None if asked.want_target == "no" else targets
    return Examples(inputs, labels, name, "folder", rows, (*notes, *bad.notes()), modality=modality)


def _one(file: Path, modality: str, asked: Asked) -> object:
    if modality != "text":
        came = codecs.by_extension(file.suffix.lower())
        if came != modality:
            raise ValueError(f"a file of {came or 'another kind'} came among those of {modality}")
        return file
    text = plain_newlines(read_text(file, asked.encoding))
    if not text.strip():
        raise ValueError("the file is empty, a text expected")
    return text


def _of_files(visible: list[Path], name: str, asked: Asked) -> Examples | None:
    """Files of one modality, each with its target in a .txt of the same name, or all without."""
    kinds = {codecs.by_extension(path.suffix.lower()) for path in visible} - {None}
    if asked.modality != "auto":
        kinds &= {asked.modality}
    if len(kinds) != 1:
        return None
    (modality,) = kinds
    files = [path for path in visible if codecs.by_extension(path.suffix.lower()) == modality]
    beside = [path.with_suffix(".txt") for path in files]
    if asked.want_target == "no" or not any(path.is_file() for path in beside):
        if asked.want_target == "yes":
            raise ValueError(
                f"{name} holds {count(len(files), 'file')} of {modality} and no targets; expected a .txt of the same "
                f"name beside each, as {files[0].name} and {beside[0].name}; or a subfolder per class"
            )
        return Examples(files, None, name, "folder", list(range(1, len(files) + 1)), modality=str(modality))
    bad = BadRows(name, asked.bad_rows, "file")
    kept: list[tuple[int, Path, str]] = []
    for row, (file, text) in enumerate(zip(files, beside, strict=True), start=1):
        if not text.is_file():
            bad.add(file.name, f"there is no {text.name} beside it")
            continue
        try:
            kept.append((row, file, read_text(text, asked.encoding).strip()))
        except ValueError as error:
            bad.add(text.name, str(error))
    rows, inputs, targets = zip(*kept, strict=True) if kept else ((), (), ())
    return Examples(list(inputs), list(targets), name, "folder", list(rows), bad.notes(), modality=str(modality))


def _visible_files(folder: Path) -> list[Path]:
    return sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    )
