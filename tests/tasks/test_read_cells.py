"""A cell that was read from a text goes into the run folder as that text, and comes out of it again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from everloop import Classifier, load, relu
from everloop.lang.read import read_cell
from everloop.tasks.run import Run, read_config

TEXT = '''\
@cell(states="h", gates="z n", init={"b.z": -1.0})
def half(x, h, W, U, b, *, act=tanh):
    """Keeps half."""
    a = W @ x + U @ h + b
    z, n = sigmoid(a.z), act(a.n)
    return 0.5 * h + z * n
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "my_cell.py"
    path.write_text(TEXT, encoding="utf-8")
    return path


@pytest.fixture
def trained(small, reviews, file, tmp_path) -> Classifier:
    return small(cell=str(file)).fit(*reviews, out=tmp_path / "run", quiet=True)


def test_the_run_folder_needs_nothing_else(trained, file, reviews, tmp_path):
    assert trained.model_name == "half (classifier)"
    assert (tmp_path / "run" / "cell.py").read_text(encoding="utf-8") == TEXT
    assert Run.open(tmp_path / "run").config["options"]["cell"] == "cell.py"
    file.unlink()
    shutil.move(tmp_path / "run", tmp_path / "elsewhere")
    again = load(tmp_path / "elsewhere")
    assert again.model_name == "half (classifier)"
    assert (again.predict_proba(reviews[0]) == trained.predict_proba(reviews[0])).all()
    assert load(again.save(tmp_path / "copy")).predict(reviews[0]) == again.predict(reviews[0])


def test_one_that_was_read_from_no_file(small, reviews, tmp_path):
    task = small(cell=read_cell(TEXT)).fit(*reviews, quiet=True)
    again = load(task.save(tmp_path / "run"))
    assert (again.predict_proba(reviews[0]) == task.predict_proba(reviews[0])).all()


def test_the_configuration_repeats_the_run(trained, file, small, reviews, tmp_path):
    file.unlink()
    options = read_config(tmp_path / "run")["options"]
    assert options["cell"] == str(tmp_path / "run" / "cell.py")
    again = Classifier(**options).fit(*reviews, out=tmp_path / "again", quiet=True)
    assert again.results_ == trained.results_


def test_a_cell_beside_a_configuration_that_was_written_by_hand(file, tmp_path):
    (tmp_path / "config.toml").write_text('[options]\ncell = "my_cell.py"\n')
    assert read_config(tmp_path / "config.toml")["options"] == {"cell": str(file)}


def test_a_changed_or_missing_text_is_noticed(trained, tmp_path):
    kept = tmp_path / "run" / "cell.py"
    kept.write_text(TEXT.replace("0.5", "0.6"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"cell\.py is damaged or was changed"):
        load(tmp_path / "run")
    kept.unlink()
    with pytest.raises(FileNotFoundError, match=r"cell\.py is missing"):
        load(tmp_path / "run")


def test_a_run_goes_on_with_its_cell_only(trained, file, small, reviews, tmp_path):
    again = small(cell=str(file)).fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
    assert again.results_ == trained.results_
    file.write_text(TEXT.replace("0.5", "0.6"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"run was begun with another cell than .*my_cell\.py is now"):
        small(cell=str(file)).fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)
    with pytest.raises(ValueError, match=r"run was begun with cell = 'cell\.py'; 'lstm' came"):
        small(cell="lstm").fit(*reviews, out=tmp_path / "run", resume=True, quiet=True)


def test_options_are_not_in_the_text(small, reviews, tmp_path):
    task = small(cell=read_cell(TEXT)(act=relu)).fit(*reviews, quiet=True)
    with pytest.raises(ValueError, match="cell half is not in the catalogue as it is here"):
        task.save(tmp_path / "run")


def test_a_text_that_is_refused_is_found_before_anything_is_read(small, file, tmp_path):
    file.write_text(TEXT.replace("a = W", "import os; a = W"), encoding="utf-8")
    with pytest.raises(ValueError, match=r"my_cell\.py, line 4: import os is not possible in a cell"):
        small(cell=str(file)).fit("no such file", quiet=True)
    with pytest.raises(FileNotFoundError, match=r"^there is no file none\.py to read a cell from$"):
        small(cell="none.py").fit("no such file", quiet=True)
