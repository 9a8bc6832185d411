"""LADDER: closed forms of its crossings, its decoder and its SVMs; the folder of its parts, and what is refused."""

import copy
import json
import math
import shutil
from typing import Annotated

import numpy as np
import pytest
import torch
from attacked import SHAPE, assert_same_state, conv_net, distance, state
from scipy.optimize import minimize
from sklearn.svm import LinearSVC
from torch import nn

from robust_nas.attacks import (
    Attack,
    LatentBoundary,
    LatentFit,
    Transfer,
    attack_field,
    fit_ladder,
    inherit,
    load_ladder,
)
from robust_nas.attacks.ladder_fit import LadderParts
from robust_nas.attacks.latent_boundaries import Boundaries, fit_boundaries
from robust_nas.config import Options, check
from robust_nas.data import Images
from robust_nas.errors import AttackError, CheckpointError, ConfigError, DataError, RunExistsError
from robust_nas.evaluation.options import EvaluationOptions
from robust_nas.layers.cuts import Cut
from robust_nas.layers.ladder import Decoder, attention

QUICK = LatentFit(decoder_width=4, decoder_epochs=2, per_class=20)


def draws(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def boundaries(kind="none", d=12, classes=4, length=1.0):
    pairs = classes * (classes - 1) // 2
    normals = length * nn.functional.normalize(draws(pairs, d))
    return Boundaries(normals, draws(pairs, seed=1), torch.ones(pairs).double(), classes, kind)


def images(count=60, classes=5):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, *SHAPE), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % classes)


# The boundaries


@pytest.mark.parametrize("length", [1.0, 2.5])
def test_the_crossing_is_minus_the_score_over_the_squared_normal_and_the_score_affine(length):
    own, z = boundaries(length=length), draws(20, 12, seed=2)
    source = torch.arange(20) % 4
    side = own.toward(source, (source + 1) % 4)
    eps, reached = own.crossing(z, side)
    score = own.score(z, side)
    torch.testing.assert_close(eps, (-score / length**2).clamp_min(0), atol=1e-6, rtol=0)
    assert reached.all()
    ahead = score < 0
    assert ahead.any()
    assert own.score(own.moved(z, side, eps), side)[ahead].abs().max() < 1e-12
    steps = torch.linspace(0, 3, 5).double()
    along = torch.stack([own.score(own.moved(z, side, step.expand(20)), side) for step in steps])
    torch.testing.assert_close(along, score + steps[:, None] * length**2)
    target = 0.7 * side.unit
    beyond, _ = own.crossing(z, side, target)
    torch.testing.assert_close(own.score(own.moved(z, side, beyond), side)[ahead], target[ahead])


@pytest.mark.parametrize("kind", ["exp", "scaled"])
def test_with_attention_halving_finds_where_the_score_passes_the_target(kind):
    own, z = boundaries(kind), draws(20, 12, seed=2)
    side = own.toward(torch.zeros(20).long(), torch.arange(20) % 3 + 1)
    eps, reached = own.crossing(z, side)
    moved = reached & (eps > 0)
    assert moved.sum() > 5
    assert own.score(own.moved(z, side, eps), side)[moved].abs().max() < 1e-9
    before = own.score(own.moved(z, side, 0.999 * eps), side)
    assert (before[moved] < 0).all()


def test_a_boundary_is_the_same_from_both_sides():
    own, z = boundaries(), draws(6, 12, seed=2)
    source, target = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([1, 2, 3, 2, 3, 3])
    there, back = own.toward(source, target), own.toward(target, source)
    assert torch.equal(there.normal, own.normals)  # all pairs, in their order
    assert torch.equal(own.score(z, there), -own.score(z, back))


def test_the_nearest_boundaries_are_those_of_the_smallest_crossings():
    own, z = boundaries(), draws(9, 12, seed=2)
    source = torch.arange(9) % 4
    found = own.nearest(z, source, 2)
    for row in range(9):
        others = [k for k in range(4) if k != source[row]]
        eps = {
            k: float(own.crossing(z[row : row + 1], own.toward(source[row : row + 1], torch.tensor([k])))[0])
            for k in others
        }
        assert [eps[int(k)] for k in found[row]] == sorted(eps.values())[:2]


def test_the_published_attention_is_practically_one_and_the_scaled_one_is_not():
    z = 100 * draws(50, 512)
    assert torch.equal(attention(z, "none"), torch.ones_like(z))
    published, scaled = attention(z, "exp"), attention(z, "scaled")
    assert published.min() > 1
    assert published.max() < 1.0144
    assert scaled.max() > 1.5
    torch.testing.assert_close(scaled.mean(1), torch.ones(50).double())


def two_clouds(d=6, count=80):
    z = draws(2 * count, d)
    z[count:] += torch.linspace(0.3, 1.5, d).double()
    return z, (torch.arange(2 * count) >= count).long()


def test_the_svm_is_parallel_to_scikit_learn_s_and_to_an_own_minimum_of_the_primal():
    z, labels = two_clouds()
    fitted = fit_boundaries(z, labels, 2, per_class=80, c=0.5, attention="none")
    normal, offset = fitted.boundaries.normals[0].numpy(), float(fitted.boundaries.offsets[0])
    assert np.linalg.norm(normal) == pytest.approx(1)
    reference = LinearSVC(C=0.5, dual=False, random_state=0).fit(z.numpy(), labels.numpy()).coef_[0]
    assert normal @ reference / np.linalg.norm(reference) > 0.999
    x, sign = z.numpy() / float(z.std(correction=0)), 2 * labels.numpy() - 1

    def primal(w):
        slack = np.maximum(1 - sign * (x @ w[:-1] + w[-1]), 0)
        return w[:-1] @ w[:-1] / 2 + 0.5 * (slack**2).sum()

    own = minimize(primal, np.zeros(7), method="BFGS").x
    length = np.linalg.norm(own[:-1])
    assert normal @ own[:-1] / length > 0.9999
    assert offset == pytest.approx(own[-1] / length * float(z.std(correction=0)), abs=0.02)
    assert float(fitted.boundaries.units[0]) == pytest.approx(float(z.std(correction=0)) / length, rel=0.01)
    right = (z @ fitted.boundaries.normals[0] + offset > 0).long() == labels
    assert fitted.accuracy == pytest.approx(float(right.float().mean()))


def test_of_a_linear_binary_head_the_normal_is_the_difference_of_its_weights():
    head = nn.Linear(5, 2).double()
    with torch.no_grad():
        head.weight.copy_(draws(2, 5))
        head.bias.copy_(draws(2, seed=1))
        z = 3 * draws(3000, 5, seed=2)
        labels = head(z).argmax(1)
    fitted = fit_boundaries(z, labels, 2, per_class=1500, c=100.0, attention="none").boundaries
    expected = (head.weight[1] - head.weight[0]).detach()
    assert nn.functional.cosine_similarity(fitted.normals[0], expected, dim=0) > 0.999
    side = fitted.toward(labels, 1 - labels)
    gap = head(z).detach().gather(1, labels[:, None]) - head(z).detach().gather(1, 1 - labels[:, None])
    exact = gap[:, 0] / expected.norm()
    assert (fitted.crossing(z, side)[0] - exact).abs().max() < 0.1


def test_classes_without_images_and_one_class_alone_are_refused():
    z = draws(6, 3)
    with pytest.raises(DataError, match=r"no images of class 2, 4 among 6"):
        fit_boundaries(z, torch.tensor([0, 1, 3, 0, 1, 3]), 5, per_class=9, c=1.0, attention="none")
    with pytest.raises(DataError, match="between two classes, got 1"):
        fit_boundaries(z, torch.zeros(6).long(), 1, per_class=9, c=1.0, attention="none")
    with pytest.raises(DataError, match="got label 3; there are 2 classes"):
        fit_boundaries(z, torch.tensor([0, 1, 3, 0, 1, 3]), 2, per_class=9, c=1.0, attention="none")
    with pytest.raises(DataError, match="classes 0 and 1 have the same latents"):
        fit_boundaries(torch.ones(6, 3), torch.tensor([0, 1] * 3), 2, per_class=9, c=1.0, attention="none")


# The decoder


def test_a_principal_component_autoencoder_of_full_rank_decodes_exactly():
    """e rotates by Q, G rotates back: x' = x + eps Q n."""
    d = math.prod(SHAPE)
    rotation = torch.linalg.qr(draws(d, d)).Q
    decoder = nn.Sequential(nn.Linear(d, d, bias=False), nn.Unflatten(1, SHAPE)).double()
    encoder = nn.Sequential(nn.Flatten(), nn.Linear(d, d, bias=False), nn.Linear(d, 3)).double()
    with torch.no_grad():
        encoder[1].weight.copy_(rotation.T)
        decoder[0].weight.copy_(rotation)
    x = 0.4 + 0.2 * torch.rand(6, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    own = boundaries(d=d, classes=3)
    parts = LadderParts(decoder, own, (d,))
    z, _ = Cut(encoder).encode(x)
    torch.testing.assert_close(parts.decode(z), x)
    source = torch.tensor([0, 1, 2, 0, 1, 2])
    side = own.toward(source, (source + 1) % 3)
    eps = torch.full((6,), 0.3).double()
    expected = x + (0.3 * side.normal @ rotation.T).view(6, *SHAPE)
    torch.testing.assert_close(parts.decode(own.moved(z, side, eps)), expected)
    assert torch.equal(parts.decode(own.moved(z, side, 0 * eps)), parts.decode(z))


@pytest.mark.parametrize("image", [(1, 8, 8), (1, 28, 28), (3, 9, 5), (3, 1, 2)])
@pytest.mark.parametrize("latent", [(7,), (4, 1, 1), (4, 3, 2)])
def test_decoders_make_images_of_any_size(latent, image):
    decoder = Decoder(latent, image, 4)
    z = torch.randn(3, *latent, generator=torch.Generator().manual_seed(0)) * 5 + 2
    decoder.standardise(z)
    found = decoder(z)
    assert found.shape == (3, *image)
    assert 0 <= found.min() <= found.max() <= 1
    inside = (z - decoder.shift) * decoder.scale
    dims = (0,) if len(latent) == 1 else (0, 2, 3)
    torch.testing.assert_close(inside.mean(dims), torch.zeros(latent[0]), atol=1e-5, rtol=0)
    torch.testing.assert_close(inside.std(dims, correction=0), torch.ones(latent[0]), atol=1e-4, rtol=0)


@pytest.mark.parametrize("reconstruction", ["mse", "l1"])
def test_training_brings_the_decoded_images_nearer(tmp_path, reconstruction, digits_net):
    model, x, labels = digits_net
    data = Images((255 * x).byte(), labels)
    options = QUICK.model_copy(
        update={"reconstruction": reconstruction, "decoder_batch": 24, "decoder_rate": 0.01}
    )
    errors = [
        fit_ladder(
            model,
            data,
            tmp_path / f"{epochs}",
            options.model_copy(update={"decoder_epochs": epochs}),
            figure=False,
        ).reconstruction_error
        for epochs in (1, 30)
    ]
    assert errors[1] < 0.8 * errors[0]


# The folder and the attack


@pytest.fixture(scope="module")
def fitted(tmp_path_factory, digits_net):
    """A folder of parts of the trained network, with its pictures."""
    model, x, labels = digits_net
    folder = tmp_path_factory.mktemp("ladder") / "parts"
    before = state(model)
    made = fit_ladder(model, Images((255 * x).byte(), labels), folder, QUICK)
    assert_same_state(before, state(model))
    return folder, made


def test_a_folder_says_what_it_is_of_and_the_attack_moves_images_across(fitted, digits_net):
    folder, made = fitted
    model, x, labels = digits_net
    assert (made.layer, made.image, made.classes, made.images) == ("features", (1, 8, 8), 10, 72)
    assert load_ladder(folder)[0] == made
    assert {path.name for path in folder.iterdir()} == {"ladder.json", "ladder.safetensors", "figures"}
    assert (folder / "figures" / "latent-boundary.csv").is_file()
    attack = LatentBoundary(folder=folder.as_posix(), targets=2, norm="l2")
    result = attack.run(model, x, labels)
    assert result.forwards == attack.passes.forward * len(x)
    moved = distance("l2", result.images - x) > 0
    with torch.no_grad():
        wrong, was = (model(each).argmax(1) != labels for each in (result.images, x))
    assert torch.equal(moved, wrong & ~was)
    assert moved.float().mean() > 0.5
    (said,) = result.flags
    median = float(distance("l2", result.images - x)[moved].median())
    assert f"{int(moved.sum())} of 80 images that were changed: {median:.4g}" in said
    weak = attack.model_copy(update={"steps": 1, "halvings": 0, "targets": 1}).run(model, x, labels)
    nearer = distance("l2", result.images - x) <= distance("l2", weak.images - x) + 1e-9
    with torch.no_grad():
        both = wrong & (model(weak.images).argmax(1) != labels)
    assert nearer[both].all()


def test_the_same_seed_gives_the_same_parts(fitted, digits_net, tmp_path):
    model, x, labels = digits_net
    data = Images((255 * x).byte(), labels)
    fit_ladder(model, data, tmp_path / "again", QUICK, figure=False)
    again, other = load_ladder(tmp_path / "again")[1], load_ladder(fitted[0])[1]
    one, two = again.decoder.state_dict(), other.decoder.state_dict()
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert torch.equal(again.boundaries.normals, other.boundaries.normals)


def test_parts_of_another_model_or_of_other_images_are_refused(fitted, digits_net):
    folder, made = fitted
    model, x, labels = digits_net
    attack = LatentBoundary(folder=str(folder))
    other = nn.Sequential(*model)
    with torch.no_grad():
        changed = nn.Sequential(*model[:-1], nn.Linear(96, 10)).eval()
        with pytest.raises(
            AttackError, match=rf"another model \(digest {made.victim[:16]}\).*transfer: true"
        ):
            attack(changed, x, labels)
    assert torch.equal(attack(other, x, labels), attack(model, x, labels))  # of the same digest
    with pytest.raises(AttackError, match="holds no model to transfer from"):
        LatentBoundary(folder=str(folder), transfer=True)(changed, x, labels)
    with pytest.raises(AttackError, match=r"is of images \(1, 8, 8\), these are \(3, 8, 8\)"):
        attack(conv_net(), torch.rand(2, *SHAPE), torch.tensor([0, 1]))


def test_a_folder_that_changed_since_its_digest_was_taken_is_refused(fitted, digits_net, tmp_path):
    model, x, labels = digits_net
    for name in ("ladder.json", "ladder.safetensors"):
        (tmp_path / name).write_bytes((fitted[0] / name).read_bytes())
    attack = LatentBoundary(folder=str(tmp_path))
    assert len(attack.digest) == 16
    assert LatentBoundary(folder=str(fitted[0])).digest == attack.digest
    attack.refuse_undefined(10, (1, 8, 8))
    fit_ladder(model, Images((255 * x).byte(), labels), tmp_path / "new", QUICK, seed=1, figure=False)
    for name in ("ladder.json", "ladder.safetensors"):
        (tmp_path / "new" / name).replace(tmp_path / name)
    with pytest.raises(AttackError, match=rf"has changed since its digest was taken; it was {attack.digest}"):
        attack(model, x, labels)
    with pytest.raises(AttackError, match="has changed since"):
        LatentBoundary(folder=str(tmp_path), digest=attack.digest).refuse_undefined(10, (1, 8, 8))


def test_a_copied_model_that_the_parts_were_not_fitted_to_is_refused(surrogate, tmp_path):
    copied = shutil.copytree(surrogate.parent / "ladder", tmp_path / "ladder")
    tree = json.loads((copied / "ladder.json").read_text())
    (copied / "ladder.json").write_text(json.dumps({**tree, "victim": "0" * 64}))
    with pytest.raises(AttackError, match="model: is not the model that the parts were fitted to"):
        LatentBoundary(folder=str(copied), transfer=True)(
            conv_net(), torch.rand(2, *SHAPE), torch.tensor([0, 1])
        )


def test_a_double_of_the_model_is_the_same_model(fitted, digits_net):
    model, x, labels = digits_net
    attack = LatentBoundary(folder=str(fitted[0]), halvings=0)
    plain = attack(model, x, labels)
    double = attack(copy.deepcopy(model).double(), x.double(), labels)
    assert double.dtype == torch.float64
    assert ((double - plain).abs().flatten(1).amax(1) < 1e-3).float().mean() > 0.9


def test_bad_folders_are_refused_and_nothing_is_left_behind(tmp_path, digits_net, fitted):
    model, x, labels = digits_net
    data = Images((255 * x).byte(), labels)
    with pytest.raises(ConfigError, match="got 'nowhere'; Sequential has 0, 1, 2"):
        fit_ladder(model, data, tmp_path / "a", LatentFit(layer="nowhere"))
    few = Images(data.pixels[labels < 8], labels[labels < 8])
    with pytest.raises(DataError, match="no images of class 8, 9"):
        fit_ladder(model, few, tmp_path / "a", QUICK)
    with pytest.raises(DataError, match="got 5 images; at least 20"):
        fit_ladder(model, Images(data.pixels[:5], labels[:5]), tmp_path / "a", QUICK)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(RunExistsError, match="exists and is not empty"):
        fit_ladder(model, data, fitted[0], QUICK)
    with pytest.raises(CheckpointError, match=r"ladder.json, ladder.safetensors is missing"):
        LatentBoundary(folder=str(tmp_path))(model, x, labels)
    copied = tmp_path / "copied"
    copied.mkdir()
    for name in ("ladder.json", "ladder.safetensors"):
        (copied / name).write_bytes((fitted[0] / name).read_bytes())
    tree = json.loads((copied / "ladder.json").read_text())
    (copied / "ladder.json").write_text(json.dumps({**tree, "classes": 9}))
    with pytest.raises(
        CheckpointError, match=r"normals is F32 \[45, 96\], the architecture needs F32 \[36, 96\]"
    ):
        load_ladder(copied)
    (copied / "ladder.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"ladder.json: cannot be read"):
        load_ladder(copied)


class Holder(Options):
    """A config that holds any attack."""

    attack: Annotated[Attack, attack_field()]


def test_it_takes_no_eps_inherits_none_and_no_evaluation_lists_it():
    with pytest.raises(ConfigError, match=r"eps is 0.1, but ladder has no norm bound; allowed: null"):
        LatentBoundary(folder="a", eps=0.1)
    with inherit({"norm": "l2", "eps": 0.5}):
        made = check(Holder, {"attack": {"name": "ladder", "folder": "a"}}, "config").attack
    assert (made.norm, made.eps) == ("l2", None)
    tree = {"threat_model": {"eps": 0.1}, "attacks": [{"attack": {"name": "ladder", "folder": "a"}}]}
    with pytest.raises(
        ConfigError, match="got attack 'ladder', which does not fit here: an evaluation needs"
    ):
        check(EvaluationOptions, tree, "evaluation")
    with pytest.raises(ConfigError, match="a bounded attack by gradients or by a generator is needed"):
        Transfer(eps=0.1, surrogates=("a",), attack={"name": "ladder", "folder": "a"})


def test_reading_parts_leaves_the_global_generator_where_it_is(fitted, tmp_path):
    for name in ("ladder.json", "ladder.safetensors"):  # of a folder that no other test has read
        (tmp_path / name).write_bytes((fitted[0] / name).read_bytes())
    before = torch.get_rng_state()
    load_ladder(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
