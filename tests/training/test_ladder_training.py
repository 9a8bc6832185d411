"""The loss `ladder`: when its parts are fitted, what its images are, its passes, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from training_cases import (
    CLASSES,
    LOSSES,
    generator,
    images,
    options,
    residual,
    run_training,
    small_batch,
    small_network,
)

from robust_nas.attacks import LatentFit
from robust_nas.attacks.ladder_fit import fit_parts
from robust_nas.config import check
from robust_nas.data import Images
from robust_nas.errors import ConfigError, DataError
from robust_nas.layers.cuts import Cut
from robust_nas.search.one_shot.optimisers import WeightOptimiser
from robust_nas.spaces import ResidualArchitecture
from robust_nas.training import Ladder, Natural
from robust_nas.training.losses import ladder
from robust_nas.workflows.context import refuse_cell_options

QUICK = LatentFit(decoder_width=4, decoder_epochs=1)


@pytest.fixture
def bound():
    """The loss with parts of the small network, the network and its batch."""
    model, (x, labels) = small_network(), small_batch()
    labels = torch.arange(8) % 5
    parts = fit_parts(Cut(model), x, labels, [torch.arange(8)], 5, QUICK, generator())
    return Ladder(latent=QUICK).with_parts(parts), model, x, labels


def test_it_is_the_weighted_cross_entropy_of_images_and_of_those_on_the_boundary(bound):
    loss, model, x, labels = bound
    crossed = loss.crossed(Cut(model), x, labels, generator())
    for weight in (0.5, 0.2, 1.0):
        found = loss.model_copy(update={"weight": weight})
        value = found(small_network(), x, labels, generator())
        clean, other = (F.cross_entropy(small_network()(each), labels) for each in (x, crossed))
        torch.testing.assert_close(value.loss, (1 - weight) * clean + weight * other)
    assert loss.model_copy(update={"weight": 0.0}).passes == Natural().passes == 3
    assert (loss.passes, loss.model_copy(update={"weight": 1.0}).passes) == (7, 4)


@pytest.mark.parametrize("target", ["random", "nearest"])
@pytest.mark.parametrize("margin", [0.0, 1.0])
def test_its_images_are_decoded_from_latents_of_the_target_score(bound, monkeypatch, target, margin):
    loss, model, x, labels = bound
    loss = loss.model_copy(update={"target": target, "margin": margin})
    seen = []
    monkeypatch.setattr(type(loss._parts), "decode", lambda parts, z: seen.append((parts, z)) or x)
    loss.crossed(Cut(model), x, labels, generator())
    ((parts, moved),) = seen
    own = parts.boundaries
    scores = torch.stack(
        [
            own.score(moved, own.toward(labels, (labels + step) % 5))
            - margin * own.toward(labels, (labels + step) % 5).unit
            for step in range(1, 5)
        ],
        dim=1,
    )
    # on the boundary of a class, or beyond it from the start
    assert (scores.amax(1) > -1e-4).all()
    assert (scores.abs().amin(1) < 1e-4).any()


def record_fits(monkeypatch, seen):
    fit = ladder.fit_parts

    def noted(cut, pixels, labels, batches, classes, options, generator, before):
        seen.append((sum(map(len, batches)), before))
        return fit(cut, pixels, labels, batches, classes, options, generator, before)

    monkeypatch.setattr(ladder, "fit_parts", noted)


def test_parts_are_fitted_behind_the_warm_up_and_again_with_the_decoder_from_where_it_was(
    tmp_path, monkeypatch
):
    seen, fitted = [], []
    record_fits(monkeypatch, seen)
    loss = Ladder(warmup_epochs=1, every=2, latent=QUICK)
    values = options(loss=loss, epochs=5)
    outcome, records, _ = run_training(tmp_path, values, net=residual())
    assert outcome.epoch < 5
    assert [count for count, _ in seen] == [24, 24]  # before epochs 1 and 3
    assert seen[0][1] is None
    assert seen[1][1] is not None
    fitted = ["ladder_svm_accuracy" in record for record in records]
    assert fitted == [False, True, True, True, True]
    # 3 steps of 8 images: an epoch of 3 passes, four of 7, and two fits, a pass an image each
    assert values.passes == pytest.approx((3 + 4 * 7 + 2) / 5)


def test_the_warm_up_is_natural_training(tmp_path):
    one, two = (options(loss=loss) for loss in (Ladder(warmup_epochs=2, latent=QUICK), Natural()))
    (found, _, _), (expected, _, _) = (
        run_training(tmp_path / str(number), values, net=residual())
        for number, values in enumerate((one, two))
    )
    assert all(torch.equal(found.state[key], expected.state[key]) for key in expected.state)
    assert one.passes == two.passes


def test_a_layer_that_is_not_there_is_refused_before_anything_starts(tmp_path):
    loss = Ladder(latent={"layer": "stages.9"})
    architecture = ResidualArchitecture(name="r", stem=2, depths=(1, 1), widths=(2, 4))
    message = (
        r"training.loss.latent.layer: got 'stages.9'; ResidualNetwork has stem, stages.0, stages.1, features"
    )
    with pytest.raises(ConfigError, match=message):
        refuse_cell_options(options(loss=loss), architecture)
    with pytest.raises(ConfigError, match=message):
        run_training(tmp_path, options(loss=loss), net=residual())
    leak = Ladder(latent={"layer": "stages.0.0.conv1"})
    with pytest.raises(ConfigError, match=r"stages.0.0.conv1: the network cannot be cut there"):
        run_training(tmp_path / "b", options(loss=leak), net=residual())


def test_a_class_without_images_is_refused(tmp_path, monkeypatch):
    whole = images(24)
    monkeypatch.setattr(
        "training_cases.images", lambda count, seed=0: Images(whole.pixels[:count], torch.zeros(count).long())
    )
    with pytest.raises(DataError, match=r"ladder: no images of class 1, 2, 3 among 24"):
        run_training(tmp_path, options(loss=LOSSES["ladder"]), net=residual())
    assert CLASSES == 4


def test_a_search_of_weights_refuses_a_loss_that_fits_parts():
    with pytest.raises(ConfigError, match=r"loss: got loss 'ladder', which does not fit here: it fits parts"):
        check(WeightOptimiser, {"loss": "ladder"}, "weights")
