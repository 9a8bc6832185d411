"""Code by path: it runs where its user named it, and nowhere else."""

import hashlib
from pathlib import Path

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


def test_a_file_that_is_listed_twice_is_one(file):
    with user_code.allow_code([file]), user_code.allow_code([file, file]):
        assert user_code.resolve("mine.py:value") == (f"{file}:value", 3)


def test_of_two_files_of_one_name_the_one_that_is_named_runs(tmp_path):
    files = [tmp_path / folder / "mine.py" for folder in "ab"]
    for file in files:
        file.parent.mkdir()
        file.write_text(f"value = {file.parent.name!r}\n")
    first, second = files
    with user_code.allow_code(files):  # as a worker gets them
        assert [user_code.resolve(f"{file}:value")[1] for file in files] == ["a", "b"]
        with pytest.raises(ConfigError, match="several files of this name are allowed"):
            user_code.resolve("/elsewhere/mine.py:value")
    with user_code.allow_code([first]), user_code.own_config(tmp_path):
        assert user_code.resolve("b/mine.py:value") == (f"{second}:value", "b")


def test_a_link_is_known_by_its_own_name(file, tmp_path):
    (tmp_path / "link.py").symlink_to(file)
    with user_code.allow_code([tmp_path / "link.py"]):
        assert user_code.resolve("/elsewhere/link.py:value")[1] == 3


@pytest.mark.parametrize("mark", ["environment.json", "model.json"])
def test_a_config_in_a_run_folder_may_come_from_anybody(file, tmp_path, mark):
    config = tmp_path / "recipe.yaml"
    assert user_code.folders_of(config) == (tmp_path, Path.cwd())
    (tmp_path / mark).touch()
    with user_code.own_config(*user_code.folders_of(config)), pytest.raises(CodeRefusedError):
        user_code.resolve("mine.py:value")


def test_what_comes_from_elsewhere_is_not_one_s_own_although_a_config_of_one_s_own_names_it(file):
    with user_code.own_config(file.parent), user_code.from_elsewhere(), pytest.raises(CodeRefusedError):
        user_code.resolve("mine.py:value")


def test_code_in_a_tree_is_named_absolutely_or_by_its_content(file, tmp_path):
    tree = {"a": ["mine.py:value", 1], "b": {"c": "plain"}}
    assert user_code.code_in(tree) == ["mine.py:value"]
    with user_code.own_config(tmp_path):
        assert user_code.absolute_names(tree) == {"a": [f"{file}:value", 1], "b": {"c": "plain"}}
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        assert user_code.names_by_content(tree)["a"] == [f"{digest}:value", 1]


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
