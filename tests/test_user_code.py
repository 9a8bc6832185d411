"""Code by path: it runs where its user named it, and nowhere else."""

import pytest

from robust_nas import user_code
from robust_nas.errors import CodeRefusedError, ConfigError

SOURCE = "value = 3\nprint('has run')\n"


@pytest.fixture(autouse=True)
def nothing_has_run(monkeypatch):
    monkeypatch.setattr(user_code, "_LOADED", {})


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(SOURCE)
    return path


def test_nothing_runs_unless_it_was_asked_for(file, capsys):
    with pytest.raises(CodeRefusedError, match=r"--allow-code mine\.py"):
        user_code.resolve(f"{file}:value")
    with user_code.allow_code([]), pytest.raises(CodeRefusedError):
        user_code.resolve(f"{file}:value")
    assert capsys.readouterr().out == ""


def test_a_config_of_one_s_own_may_name_code_relative_to_itself(file, capsys):
    with user_code.own_config(file.parent):
        assert user_code.resolve("mine.py:value") == (f"{file}:value", 3)
        assert user_code.resolve("mine.py:value") == (f"{file}:value", 3)
    assert capsys.readouterr().out == "has run\n"  # once a process
    assert user_code.resolve(f"{file}:value")[1] == 3  # by its absolute name it has run already
    with pytest.raises(CodeRefusedError):
        user_code.resolve("mine.py:value")  # a relative one is never looked up


def test_the_first_folder_that_has_the_file_is_taken(file, tmp_path):
    with user_code.own_config(tmp_path / "none", file.parent):
        assert user_code.resolve("mine.py:value")[0] == f"{file}:value"


def test_a_folder_from_elsewhere_gets_the_file_that_its_reader_lists(file, tmp_path):
    other = tmp_path / "received" / "mine.py"
    other.parent.mkdir()
    other.write_text("value = 'not this one'\n")
    with user_code.allow_code([file]):
        assert user_code.resolve(f"{other}:value") == (f"{file}:value", 3)
        assert user_code.resolve("mine.py:value") == (f"{file}:value", 3)
        with pytest.raises(CodeRefusedError):
            user_code.resolve("/elsewhere/other.py:value")
    assert user_code.allowed_files() == (file,)
    assert list(user_code.code_digests()) == [str(file)]


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (SOURCE, "none", "has no 'none'"),
        ("1 / 0\n", "value", "fails: ZeroDivisionError"),
        ("import sys; sys.exit(3)\n", "value", "fails: SystemExit"),
        ("(", "value", "fails: SyntaxError"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(tmp_path, source, name, message):
    (tmp_path / "mine.py").write_text(source)
    with user_code.own_config(tmp_path), pytest.raises(ConfigError, match=message):
        user_code.resolve(f"mine.py:{name}")


@pytest.mark.parametrize(
    "spec", ["none.py:value", "a\0b.py:value", "x" * 5000 + ".py:value", "~nobody/a.py:value"]
)
def test_files_that_are_not_there(tmp_path, spec):
    with user_code.own_config(tmp_path), pytest.raises(ConfigError, match="there is no such file"):
        user_code.resolve(spec)
    with pytest.raises(ConfigError, match="there is no such file"), user_code.allow_code([spec[:-6]]):
        pass


def test_a_file_finds_its_neighbours(tmp_path):
    (tmp_path / "neighbour_of_mine.py").write_text("value = 4\n")
    (tmp_path / "mine.py").write_text("from neighbour_of_mine import value\n")
    with user_code.own_config(tmp_path):
        assert user_code.resolve("mine.py:value")[1] == 4
