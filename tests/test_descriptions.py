"""Every key of every config has a description: the comment at its field."""

from typing import Annotated

import pytest
from all_registries import CONFIGS, REGISTRIES, named, reachable
from package_files import modules
from pydantic import Field

from robust_nas.attacks import ATTACKS
from robust_nas.config import Count, Options, parse_yaml, to_yaml
from robust_nas.descriptions import commented, description, descriptions
from robust_nas.user_code import allow_code

LONGEST = 100  # characters


def undescribed(models):
    return [
        f"{model.__name__}.{key}"
        for model in models
        for key in model.model_fields
        if not description(model, key)
    ]


def all_models():
    methods = [named(each).get(name) for each in REGISTRIES for name in named(each).built_in]
    return reachable([*methods, *map(named, CONFIGS)])


def test_every_registry_of_the_package_is_walked():
    written = [
        line.partition(" ")[0]
        for path in modules().values()
        for line in path.read_text().splitlines()
        if " = Registry(" in line and not line.startswith(" ")
    ]
    assert sorted(written) == sorted(each.partition(":")[2] for each in REGISTRIES)


def test_every_key_of_every_model_has_a_description():
    models = all_models()
    assert len(models) > 200
    assert undescribed(models) == []


def test_a_description_is_a_short_phrase_that_does_not_repeat_its_key():
    wrong = [
        f"{model.__name__}.{key}: {text}"
        for model in all_models()
        for key, text in descriptions(model).items()
        if len(text) > LONGEST or text.endswith(".") or text.split()[0] == key or "None" in text
    ]
    assert wrong == []


class Inner(Options):
    side: Count = 3  # pixels; None: all. A reason that only a reader of the source needs.
    # images of a step
    batch: Annotated[Count, Field(le=1000)] = 64
    bare: Count = 1
    said: Count = Field(default=1, description="given")  # not this one


class Outer(Inner):
    side: Count = 5
    parts: tuple[Inner, ...] = (Inner(), Inner(side=4))  # pieces
    free: dict[str, int] = Field(default={"a": 1})


def test_a_description_is_the_first_sentence_of_the_comment_at_the_field():
    assert descriptions(Inner) == {"side": "pixels; null: all", "batch": "images of a step", "said": "given"}
    assert undescribed([Outer]) == ["Outer.bare", "Outer.free"]


def test_a_key_without_a_comment_has_the_description_of_the_base_class():
    assert description(Outer, "side") == "pixels; null: all"


def test_a_printed_config_has_the_descriptions_as_comments():
    text = commented(to_yaml(Outer()), Outer())
    assert text.splitlines()[:4] == [
        "side: 5  # pixels; null: all",
        "batch: 64  # images of a step",
        "bare: 1",
        "said: 1  # given",
    ]
    assert "- side: 4  # pixels; null: all" in text
    assert Outer.model_validate(parse_yaml(text, "")) == Outer()


def test_a_comment_that_does_not_fit_behind_its_value_is_above_the_key():
    long = Outer(free={"x" * 30: 1}, parts=tuple(Inner(side=number) for number in range(1, 4)))
    text = commented("side: 'a\n\n  b'\n", long)
    assert text == "# pixels; null: all\nside: 'a\n\n  b'\n"


@pytest.mark.parametrize("comment", ["  # tries of an image", ""])
def test_a_method_of_ones_own_is_described_too(tmp_path, comment):
    file = tmp_path / "mine.py"
    file.write_text(
        "from robust_nas.attacks import BoundedAttack\nfrom robust_nas.config import Count\n\n\n"
        f"class Mine(BoundedAttack):\n    tries: Count = 1{comment}\n"
    )
    with allow_code([file]):
        found = descriptions(ATTACKS.get(f"{file}:Mine"))
    assert found.get("tries", "") == comment.removeprefix("  # ")
    assert found["eps"] == descriptions(ATTACKS.get("pgd"))["eps"]
