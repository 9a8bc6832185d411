"""Derivation by perturbation against a plain loop over all operations, and the limit on skips against brute force."""

import copy

import torch
import torch.nn.functional as F
from cases import small_space
from dsara_steps import SPACE, draw, make
from hypothesis import given, settings
from hypothesis import strategies as st
from small_search import ONE_SHOT, images, searched
from torch import nn

from robust_nas.attacks import attack_mode
from robust_nas.nets import Supernet
from robust_nas.search import DARTS, AlphaOptimiser
from robust_nas.search.one_shot.derivation import Scores, derived, limit_skips, normal_kinds
from robust_nas.search.one_shot.perturbation import attacked_batches, perturbation_scores
from robust_nas.spaces import Edge, load_space

WIDE = small_space(3, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])


class Zero(nn.Module):
    """An operation whose output is zero."""

    def __init__(self, operation):
        super().__init__()
        self.operation = operation

    def forward(self, x):
        return torch.zeros_like(self.operation(x))


def plain_loss(supernet, batches, removed=None):
    """The loss of a supernet in which operations (kind, edge, operations) are replaced by zeros, for once."""
    replaced = []
    for cell in supernet.cells:
        if removed is not None and cell.kind == removed[0]:
            for operation in removed[2]:
                replaced.append((cell.edges[removed[1]], operation, cell.edges[removed[1]][operation]))
                cell.edges[removed[1]][operation] = Zero(cell.edges[removed[1]][operation])
    with torch.no_grad(), attack_mode(supernet, "batch"):
        losses = [F.cross_entropy(supernet(batch.adversarial), batch.labels) for batch in batches]
    for edge, operation, module in replaced:
        edge[operation] = module
    return sum(losses) / len(losses)


def test_scores_are_what_the_loss_rises_by_without_an_operation():
    search = make(strategy=DARTS)
    drawn = [draw(1), draw(2)]
    before = copy.deepcopy(search.supernet.state_dict())
    scores = perturbation_scores(search, drawn)
    assert all(torch.equal(before[name], tensor) for name, tensor in search.supernet.state_dict().items())
    search.supernet.execution = "plain"
    for kind, plain in perturbation_scores(search, drawn).items():
        torch.testing.assert_close(scores[kind].operations, plain.operations, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(scores[kind].edges, plain.edges, rtol=1e-6, atol=1e-9)
    supernet = copy.deepcopy(search.supernet)
    whole, number = plain_loss(supernet, drawn), len(SPACE.operations)
    genotype = {}
    for kind in SPACE.kinds:
        nodes = [[] for _ in range(SPACE.nodes)]
        for edge, (node, source) in enumerate(SPACE.edges):
            rises = [plain_loss(supernet, drawn, (kind, edge, [o])) - whole for o in range(number)]
            all_of_it = plain_loss(supernet, drawn, (kind, edge, range(number))) - whole
            torch.testing.assert_close(
                scores[kind].operations[edge], torch.stack(rises), rtol=1e-6, atol=1e-9
            )
            torch.testing.assert_close(scores[kind].edges[edge], all_of_it, rtol=1e-6, atol=1e-9)
            best = SPACE.operations[max(range(number), key=lambda o: rises[o])]
            nodes[node].append((float(all_of_it), Edge(best, source)))
        genotype[kind] = [
            sorted((e for _, e in sorted(found, key=lambda pair: -pair[0])[: SPACE.kept(node)]), key=lambda e: e.source)
            for node, found in enumerate(nodes)
        ]  # fmt: skip
    assert derived(search, scores, "found", None) == SPACE.architecture("found", genotype)


def test_the_outcome_of_a_search_is_derived_from_scores_on_attacked_images_of_the_alphas_half(tmp_path):
    strategy = DARTS(**ONE_SHOT, derive_by="perturbation", alphas=AlphaOptimiser(learning_rate=0.1))
    space = small_space(2, ["max_pool_3x3", "skip_connect", "sep_conv_3x3"])
    outcome, records = searched(tmp_path, strategy, space=space)
    argmax, same = searched(
        tmp_path / "argmax", DARTS(**{**dict(strategy), "derive_by": "argmax"}), space=space
    )
    assert records == same  # the skips in the records are those of the arg max
    assert outcome.edge_weights == argmax.edge_weights
    assert outcome.architecture != argmax.architecture


def test_images_are_attacked_by_draws_of_their_own():
    supernet = Supernet(SPACE, 4, 1, channels=2, cells=3)
    search = make(strategy=DARTS, attack=ONE_SHOT["attack"])
    search.supernet.load_state_dict(supernet.state_dict())
    search.supernet.float()
    before = search.generator.get_state()
    one, two = (attacked_batches(search, images(40), 8, 3) for _ in range(2))
    other = attacked_batches(search, images(40), 8, 4)
    assert [len(batch.labels) for batch in one] == [8] * 5
    assert all(torch.equal(a.adversarial, b.adversarial) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0].adversarial, other[0].adversarial)
    assert not torch.equal(one[0].adversarial, one[0].natural)
    assert torch.equal(search.generator.get_state(), before)
    assert len(attacked_batches(search, images(600), 8, 3)) == 32
    assert len(attacked_batches(search, images(600), 300, 3)) == 1


def skips_of(nodes):
    return sum(edge.operation == "skip_connect" for node in nodes for edge in node)


def by_threshold(space, weights, derive, most):
    """Forbid all skips up to a weight, from the weakest on, until few enough are derived: no greedy step."""
    skip = space.operations.index("skip_connect")
    for bound in [-1.0, *sorted(weights[:, skip].tolist())]:
        left = weights.clone()
        left[weights[:, skip] <= bound, skip] = -torch.inf
        if skips_of(derive(left)) <= most:
            return derive(left)
    raise AssertionError("skips without a skip")


@settings(max_examples=40)
@given(st.integers(0, 10_000), st.integers(0, 3), st.booleans())
def test_max_skips_is_the_weakest_threshold_that_leaves_few_enough(seed, most, own_edges):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(WIDE.edges), len(WIDE.operations))
    weights = (torch.randn(shape, generator=generator) + torch.tensor([0.0, 1.0, 0.0])).softmax(1)
    edges = torch.rand(shape[0], generator=generator) if own_edges else None
    supernet = Supernet(WIDE, 4, 1, channels=2, cells=3)

    def derive(rows):
        return supernet.derive_nodes(rows, edges)

    nodes = limit_skips(WIDE, weights, derive, most)
    assert skips_of(nodes) <= most
    assert nodes == by_threshold(WIDE, weights, derive, most)
    if skips_of(derive(weights)) <= most:
        assert nodes == derive(weights)


def test_max_skips_limits_normal_cells_alone_and_only_the_outcome(tmp_path):
    assert normal_kinds(load_space("darts")) == ["normal"]
    assert normal_kinds(load_space("dsara")) == ["accurate", "robust"]
    search = make(strategy=DARTS)
    weights = torch.tensor([[0.1, 0.8, 0.1]] * len(SPACE.edges))
    architecture = derived(search, {kind: Scores(weights) for kind in SPACE.kinds}, "x", 1)
    counts = {cell.kind: cell.operations().count("skip_connect") for cell in architecture.genotype}
    assert counts == {"accurate": 1, "reduce": 4, "robust": 1}
    options = {**ONE_SHOT, "alphas": AlphaOptimiser(learning_rate=0.1)}
    free, records = searched(tmp_path / "free", DARTS(**options))
    limited, same = searched(tmp_path / "limited", DARTS(**options, max_skips=0))
    assert records == same
    assert free.edge_weights == limited.edge_weights
    assert all(
        "skip_connect" not in cell.operations() for cell in limited.architecture.genotype if cell.kind != "reduce"
    )  # fmt: skip


def test_where_every_edge_is_kept_none_can_take_the_place_of_a_skip():
    space = load_space("nas-bench-201", {"operations": ["none", "skip_connect", "nor_conv_3x3"]})
    supernet = Supernet(space, 4, 1, channels=2, cells=3)
    weights = torch.tensor([[0.3, 0.4, 0.2]] * len(space.edges))
    nodes = limit_skips(space, weights, supernet.derive_nodes, 2)
    operations = [edge.operation for node in nodes for edge in node]
    assert sorted(operations) == ["none"] * 4 + ["skip_connect"] * 2
