"""Sub-networks of a supernet: the supernet's own logits where one operation is all, scores, ranks, and refusals."""

import shutil
from pathlib import Path

import pytest
import torch
from cases import config
from small_study import TREE, HereEngine, small_study

import robust_nas
from robust_nas.attacks import PGD
from robust_nas.config import read_yaml, to_dict, to_yaml
from robust_nas.errors import ArchitectureError, CheckpointError, ConfigError, DataError
from robust_nas.nets import Supernet
from robust_nas.nets.inherited import estimate_statistics, sub_network
from robust_nas.run_folder import read_json
from robust_nas.spaces import Edge, load_space
from robust_nas.studies.run.inherited import inherited_scores, refuse_unscorable
from robust_nas.studies.run.runner import run_study
from robust_nas.workflows.search_job import SearchJob

REFERENCE = Path(__file__).parents[2] / "results" / "reference" / "evidence-fashion" / "search-seed0"
ATTACK = PGD(eps=0.1, steps=2)


def one_hot(supernet, architecture):
    """Rows of the mixing per kind: 1 for the chosen operation of a kept edge, all 0 for an absent edge."""
    space, rows = supernet.space, {}
    for cell in architecture.genotype:
        rows[cell.kind] = torch.zeros(len(space.edges), len(space.operations))
        for number, node in enumerate(cell.nodes):
            for operation, source in node:
                index = space.edges.index((number, source)), space.operations.index(operation)
                rows[cell.kind][index] = 1.0
    return rows


def with_statistics(supernet):
    """Batch norms that do more than divide by one."""
    generator = torch.Generator().manual_seed(1)
    supernet.train()
    supernet(torch.rand(16, 1, 8, 8, generator=generator))
    return supernet.eval()


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("dsara", {"nodes": 1}),
        ("nas-bench-201", {}),
        ("nas-bench-201", {"topology": {"aggregation": "mean"}}),
    ],
)
def test_a_supernet_in_which_every_edge_has_one_operation_is_its_sub_network(name, changes):
    space = load_space(name, changes)  # all edges of every node are kept
    supernet = with_statistics(Supernet(space, 4, 1, channels=2, cells=4, seed=1))
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=generator) * 1e5)
    x = torch.rand(8, 1, 8, 8, generator=generator)
    network = sub_network(supernet, supernet.derive()).eval()
    with torch.no_grad():
        torch.testing.assert_close(network(x), supernet(x), rtol=1e-5, atol=1e-6)


def test_absent_edges_are_rows_of_zeros():
    space = load_space("dsara")
    supernet = with_statistics(Supernet(space, 4, 1, channels=2, cells=3, seed=1))
    with torch.no_grad():
        for alpha in supernet.alphas.values():
            alpha.copy_(torch.randn(alpha.shape, generator=torch.Generator().manual_seed(3)))
    architecture = supernet.derive()
    assert architecture.cells != len(supernet.cells)  # scored at the supernet's size
    network, rows = sub_network(supernet, architecture).eval(), one_hot(supernet, architecture)
    x = torch.rand(8, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        s0 = s1 = supernet.stem(supernet.normalise(x))
        for cell in supernet.cells:
            s0, s1 = s1, cell(s0, s1, rows[cell.kind])
        torch.testing.assert_close(network(x), supernet.classifier(s1.mean((2, 3))), rtol=1e-5, atol=1e-6)


def test_statistics_are_the_sub_networks_own_and_the_supernet_stays():
    from robust_nas.data import Images

    supernet = with_statistics(Supernet(load_space("dsara"), 4, 1, channels=2, cells=3, seed=1))
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    network = sub_network(supernet, supernet.derive())
    pixels = torch.randint(
        0, 256, (32, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    images = Images(pixels, torch.arange(32) % 4)
    estimate_statistics(network, images, 16)
    assert not network.training
    means = [network.stem[0](network.normalise(half)).mean((0, 2, 3)) for half in images.float().split(16)]
    torch.testing.assert_close(network.stem[1].running_mean, sum(means) / 2)
    after = supernet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched") / "search"
    return folder, robust_nas.run_search(config(), folder).architecture


def swapped(architecture, operation):
    """The architecture with that operation on every edge."""
    nodes = {
        cell.kind: [[Edge(operation, edge.source) for edge in node] for node in cell.nodes]
        for cell in architecture.genotype
    }
    space = config().space.load()
    return space.architecture(operation.replace("_", "-"), nodes)


def test_scores_are_the_same_for_the_same_seed_and_robust_is_at_most_clean(searched):
    folder, architecture = searched
    found = [architecture, swapped(architecture, config().space.load().operations[-1])]
    told = []
    scores = [
        inherited_scores(
            folder, found, attack=ATTACK, images=20, seed=2, progress=lambda *args: told.append(args)
        )
        for _ in range(2)
    ]
    assert scores[0] == scores[1]
    assert [score.name for score in scores[0]] == [one.name for one in found]
    assert all(0 <= score.robust <= score.clean <= 1 and score.images == 20 for score in scores[0])
    assert told[0][:3] == ("inherited", 1, 2)
    assert "at the supernet's" in told[0][3]
    alone = inherited_scores(folder, found[1:], attack=ATTACK, images=20, seed=2)
    assert alone == scores[0][1:]


def test_the_validation_split_is_all_that_is_judged(searched):
    folder, architecture = searched
    (score,) = inherited_scores(folder, [architecture], attack=ATTACK, images=10**6, seed=2)
    record = config()
    from robust_nas.workflows.context import load_context

    assert score.images == len(load_context(record).validation)


def test_foreign_folders_are_refused(searched, tmp_path):
    folder, architecture = searched
    (tmp_path / "empty").mkdir()
    unfinished = shutil.copytree(folder, tmp_path / "unfinished")
    (unfinished / "result.json").unlink()
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "checkpoint.pt").write_bytes(b"no checkpoint")
    other = shutil.copytree(folder, tmp_path / "other")
    (other / "config.yaml").write_text("a: 1\n")
    for place, message in [
        (tmp_path / "empty", "no finished search"),
        (unfinished, "no finished search"),
        (damaged, "checkpoint"),
        (other, "not made by a search"),
    ]:
        with pytest.raises(CheckpointError, match=message):
            inherited_scores(place, [architecture], attack=ATTACK, images=20, seed=0)
    images = shutil.copytree(folder, tmp_path / "images")
    text = (images / "environment.json").read_text()
    (images / "environment.json").write_text(text.replace('"dataset_checksum": "', '"dataset_checksum": "0'))
    with pytest.raises(DataError, match="other images"):
        inherited_scores(images, [architecture], attack=ATTACK, images=20, seed=0)


def test_a_search_of_an_earlier_or_a_later_version_scores_the_same(searched, tmp_path, monkeypatch):
    folder, architecture = searched
    (score,) = inherited_scores(folder, [architecture], attack=ATTACK, images=20, seed=2)
    earlier = shutil.copytree(folder, tmp_path / "earlier")  # one file, with the loss's former name
    recipe = read_yaml(folder / "recipe.yaml")
    attack = {"name": "pgd", "eps": 0.1, "steps": 2}
    recipe["training"]["loss"] = {"name": "pgd", "attack": attack}
    record = {"config": recipe, "space": read_yaml(folder / "config.yaml")["space"]}
    (earlier / "config.yaml").write_text(to_yaml(record))
    (earlier / "recipe.yaml").unlink()
    assert inherited_scores(earlier, [architecture], attack=ATTACK, images=20, seed=2) == [score]

    class Later(SearchJob):
        added: int = 3

    monkeypatch.setattr("robust_nas.studies.run.inherited.SearchJob", Later)
    assert inherited_scores(folder, [architecture], attack=ATTACK, images=20, seed=2) == [score]


def test_the_committed_search_of_an_earlier_version_is_read(tmp_path):
    folder = shutil.copytree(REFERENCE, tmp_path / "search")
    for name in read_json(folder / "result.json")["artifacts"]:  # not all of them are committed
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    found = refuse_unscorable(folder, [robust_nas.load_architecture(str(REFERENCE / "architecture.yaml"))])
    assert (found.config.training.loss.label, found.space.name) == ("pgd-at", "dsara")


def test_architectures_of_another_space_and_too_few_images_are_refused(searched):
    folder, architecture = searched
    foreign = robust_nas.load_architecture("arnas")
    with pytest.raises(ArchitectureError, match=r"arnas: .*; the search in"):
        inherited_scores(folder, [architecture, foreign], attack=ATTACK, images=20, seed=0)
    with pytest.raises(ConfigError, match="images: got 3; at least 10"):
        inherited_scores(folder, [architecture], attack=ATTACK, images=3, seed=0)


def test_a_study_of_cells_says_how_inherited_scores_rank_them(searched, tmp_path, monkeypatch):
    monkeypatch.setattr("robust_nas.studies.report.page.write_report", lambda tree, folder, own=(): None)
    folder, found = searched
    drawn = [robust_nas.sample(config().space.load(), seed).resized(3, 2) for seed in range(3)]
    base = found.resized(3, 2)
    study = small_study(
        base=to_dict(base),
        space=[
            {"name": "list", "architectures": [to_dict(one) for one in drawn]},
            {"name": "grid", "axes": {"channels": [2, 3]}},
        ],
        seeds=1,
        training={**TREE["training"], "epochs": 1},
        inherited={"search": str(folder), "images": 30, "attack": {"steps": 2}},
        analysis={"draws": 200},
    )
    out = run_study(study, tmp_path / "cells", engine=HereEngine())
    tree = read_json(out / "analysis.json")
    assert tree["cost"]["done"] == 5
    assert {point["factors"]["width"] for point in tree["points"]} == {2, 3}
    assert all(len(point["lip_stages"]["trained"]) == 4 for point in tree["points"])  # three stages, the head
    scores = read_json(out / "inherited.json")["scores"]
    genotypes = {point["factors"]["genotype"] for point in tree["points"]}
    assert set(scores) == genotypes
    assert len(genotypes) == 4  # three drawn, and the base at two sizes
    assert len(tree["inherited"]["pairs"]) == tree["inherited"]["n"] == 4
    assert sorted(pair["inherited"] for pair in tree["inherited"]["pairs"]) == sorted(
        score["robust"] for score in scores.values()
    )
    told_apart = len({score["robust"] for score in scores.values()}) > 1
    assert (tree["inherited"]["tau"] is not None) == told_apart
    with pytest.raises(CheckpointError, match="holds no finished search"):
        run_study(
            study.model_copy(update={"inherited": study.inherited.model_copy(update={"search": "nowhere"})}),
            tmp_path / "none",
            engine=HereEngine(),
        )
    assert not (tmp_path / "none").exists()
