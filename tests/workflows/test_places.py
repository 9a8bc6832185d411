"""Where verbs write by default, and which model or architecture a user's folder means."""

from pathlib import Path

import pytest
from cases import config

import robust_nas
from robust_nas.config import to_yaml
from robust_nas.errors import ArchitectureError, ConfigError
from robust_nas.extension import ExtensibleJob
from robust_nas.workflows import places
from robust_nas.workflows.evaluate import label_of
from robust_nas.workflows.places import PLACES, model_in, of_config, of_files, of_model, run_folder_of


class Job(ExtensibleJob):
    """A job on a model; one with more images extends one with fewer."""

    model: str = ""
    images: int = 10
    attack: str = "fgsm"
    digest: str = ""

    def extension_of(self, before, folder):
        return self if self.same_but(before, "images") and self.images > before.images else None


def make_run(folder, job=None):
    """Write what says that a folder is a finished run, of a job where one is given."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text("name: n\n" if job is None else to_yaml(job))
    for name in ("result.json", ".lock"):
        (folder / name).write_text("{}")
    return folder


def make_model(folder):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.json").write_text("{}")
    return folder


@pytest.fixture
def run(tmp_path):
    """A run of all jobs, with a model, its reference and a compressed one."""
    folder = make_run(tmp_path / "run")
    make_model(make_run(folder / "model"))
    make_model(folder / "reference" / "model")
    make_model(make_run(folder / "small") / "model")
    return folder


@pytest.mark.parametrize(
    ("verb", "method", "folder"),
    [
        ("run", "", "results/tiny"),
        ("search", "", "results/tiny-search"),
        ("train", "", "results/tiny-model"),
        ("rank", "", "results/tiny-rank"),
        ("distill", "adv-kip", "results/tiny-adv-kip"),
        ("study run", "", "results/tiny"),
        ("compare", "", "results/tiny"),
    ],
)
def test_a_job_from_a_config_has_its_name_in_results(verb, method, folder, tmp_path):
    assert of_config(verb, None, "tiny", method) == Path(folder)
    assert of_config(verb, tmp_path / "own", "tiny", method) == tmp_path / "own"


@pytest.mark.parametrize(
    ("model", "parent"),
    [
        ("run/model", "run"),
        ("run/reference/model", "run/reference"),
        ("run/small/model", "run/small"),
        ("alone", "alone"),
        ("alone/model", "alone/model"),
    ],
)
@pytest.mark.parametrize(
    ("verb", "method", "name"),
    [
        ("evaluate", "", "evaluation"),
        ("compress", "", "compressed"),
        ("defend", "", "defended"),
        ("attack train", "ai-gan", "ai-gan"),
        ("export", "", "export"),
        ("attack run", "apgd", "attack-apgd"),
    ],
)
def test_a_job_on_a_model_has_the_name_that_run_uses_in_its_run_folder(
    run, verb, method, name, model, parent, tmp_path
):
    place = tmp_path / model
    if verb in ("export", "attack run"):
        assert of_files(verb, place, method) == tmp_path / parent / name
        return
    folder, job = of_model(verb, Job(), place, None, "new", method=method)
    assert folder == tmp_path / parent / name
    assert (folder / job.model).resolve() == place


def test_a_model_given_as_a_dot_has_a_run_folder_too(run, monkeypatch):
    monkeypatch.chdir(run / "model")
    assert run_folder_of(Path()) == run
    monkeypatch.chdir(run)
    assert run_folder_of(Path("model")).resolve() == run


def place_of(model, mode="new", **settings):
    folder, job = of_model("evaluate", Job(**settings), model, None, mode, label="aa-linf-0.1")
    return folder.name, job


def test_other_settings_get_a_name_of_their_own_and_are_found_again(run):
    model = run / "model"
    for name, settings in {
        "evaluation": {},
        "evaluation-aa-linf-0.1": {"attack": "aa"},
        "evaluation-aa-linf-0.1-2": {"attack": "aa", "images": 5},
    }.items():
        found, job = place_of(model, **settings)
        assert found == name
        make_run(run / found, job)
    assert place_of(model)[0] == "evaluation"
    for mode in ("new", "resume", "overwrite"):
        assert place_of(model, mode, attack="aa", images=5)[0] == "evaluation-aa-linf-0.1-2"
        assert place_of(model, mode, attack="aa")[0] == "evaluation-aa-linf-0.1"
    assert place_of(model, attack="pgd")[0] == "evaluation-aa-linf-0.1-3"


def test_the_same_settings_of_a_changed_model_have_the_same_folder(run):
    make_run(run / "evaluation", place_of(run / "model", digest="1")[1])
    assert place_of(run / "model", digest="2")[0] == "evaluation"


def test_resume_finds_the_folder_that_more_images_extend(run):
    model = run / "model"
    make_run(run / "evaluation", place_of(model, attack="aa")[1])
    make_run(run / "evaluation-aa-linf-0.1", place_of(model, images=20)[1])
    assert place_of(model, "resume", images=30)[0] == "evaluation-aa-linf-0.1"
    assert place_of(model, "new", images=30)[0] == "evaluation-aa-linf-0.1-2"


def test_folders_of_earlier_versions_are_found_again(tmp_path):
    run = make_run(tmp_path / "run")
    model = make_model(run / "model")
    inside, earlier = model / "evaluation", run / "model-compressed"
    make_run(inside, Job(model=".."))
    make_run(earlier, Job(model="../model"))
    assert of_model("evaluate", Job(), model, None, "resume")[0] == inside
    assert of_model("compress", Job(), model, None, "resume")[0] == earlier
    assert of_model("evaluate", Job(attack="aa"), model, None, "resume")[0] == run / "evaluation"


def test_files_that_are_never_overwritten_get_a_number(run):
    first = of_files("attack run", run / "model", "apgd", again=False)
    (first / "set.npz").mkdir(parents=True)
    (first / "set.npz" / "kept").write_text("")
    assert of_files("attack run", run / "model", "apgd", again=False) == run / "attack-apgd-2"
    assert of_files("attack run", run / "model", "apgd") == first


def test_the_folder_of_the_model_is_refused(run):
    for out in (run / "model", run):
        with pytest.raises(ConfigError, match=r"holds the model; evaluate needs .*such as .*evaluation"):
            of_model("evaluate", Job(), run / "model", out, "new")


@pytest.mark.parametrize(
    ("overrides", "label"),
    [
        ((), "fgsm-pgd-linf-0.1"),
        (("evaluation.attacks=null", "evaluation.suite=cascade"), "cascade-linf-0.1"),
        (("evaluation.images=50", "evaluation.threat_model.eps=8/255"), "fgsm-pgd-linf-0.0314-50"),
    ],
)
def test_the_second_name_of_an_evaluation_says_suite_norm_eps_and_images(overrides, label):
    assert label_of(config(*overrides)) == label


def test_a_run_folder_means_the_model_in_it(run, tmp_path):
    for folder in (run, run / "model"):
        assert model_in(folder) == run / "model"
    assert model_in(run / "small") == run / "small" / "model"
    assert model_in(tmp_path / "none") == tmp_path / "none"  # for its reader to refuse


def test_a_folder_with_several_models_is_refused_with_their_names(run, tmp_path):
    with pytest.raises(ConfigError) as caught:
        model_in(tmp_path)
    for name in ("run/model", "run/reference/model", "run/small/model"):
        assert str(tmp_path / name) in str(caught.value)
    for number in range(places.MOST_SHOWN):
        make_model(tmp_path / f"more-{number}")
    with pytest.raises(ConfigError, match=r"name one of the models in it: .* and 3 more"):
        model_in(tmp_path)


def test_the_folder_of_a_search_is_no_model_and_says_how_to_train_one(tmp_path):
    (tmp_path / "search").mkdir()
    (tmp_path / "search" / "architecture.yaml").write_text("")
    with pytest.raises(ConfigError, match=r"not trained; train it with robust-nas train .*search$"):
        model_in(tmp_path)


def test_a_run_folder_means_the_architecture_in_it(tmp_path):
    network = robust_nas.MLPArchitecture(name="m", depth=1, width=8)
    for name in ("a/model", "a/search", "b/search"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "architecture.yaml").write_text(to_yaml(network))
    assert robust_nas.load_architecture(tmp_path / "a") == network
    assert robust_nas.load_architecture(tmp_path / "b") == network
    with pytest.raises(
        ArchitectureError, match=r"name one of the folders in it: .*a/model, .*a/search, .*b/search"
    ):
        robust_nas.load_architecture(tmp_path)


def cell(text, more=""):
    named = text.format(name="NAME", method="METHOD")
    return f" `{named}`{more} " if text else " "


@pytest.mark.parametrize("verb", PLACES)
def test_the_page_of_the_commands_has_every_place(verb):
    place = PLACES[verb]
    second = f"{place.of_model}-{place.second}" if place.second else ""
    cells = [
        f" `{verb}` ",
        cell(place.in_results, ", of a module" if place.of_model else ""),
        cell(place.of_model),
        cell(second, "" if "settings" in place.when else ", each time"),
    ]
    page = (Path(__file__).parents[2] / "docs" / "how-to" / "commands.md").read_text()
    assert f"|{'|'.join(cells)}|" in page.splitlines()
