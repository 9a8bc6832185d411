"""The hooks of robust training one by one: closed forms, what they refuse, and what the record says of them."""

import io
import os
import zipfile

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cases import config
from torch import nn
from training_cases import (
    CLASSES,
    EPS,
    KL,
    LOSSES,
    extra_images,
    generator,
    images,
    linear_network,
    network,
    options,
    run_training,
    same,
    small_batch,
    small_network,
)

import robust_nas
from robust_nas.attacks import NFGSM, PGD
from robust_nas.config import check, to_dict
from robust_nas.config_paths import seen_from_file
from robust_nas.data import Augment, npz
from robust_nas.errors import ConfigError, DataError
from robust_nas.run_folder import Run
from robust_nas.training import (
    PGDAT,
    SWA,
    TRADES,
    EarlyStopping,
    EpsSchedule,
    ExtraImages,
    LabelSmoothing,
    Loss,
    LossValue,
    Natural,
    TrainingContext,
    loop,
)


def smoothed(loss, share, model=None):
    training = TrainingContext(network=model or small_network(), loss=loss, generator=generator())
    training.hooks.append(LabelSmoothing(smoothing=share).start(training))
    return training.value(*small_batch()).loss.detach()


# Label smoothing


def test_smoothed_labels_are_the_cross_entropy_with_a_share_for_all_classes():
    x, labels = small_batch()
    log_p = small_network()(x).detach().log_softmax(1)
    targets = 0.7 * F.one_hot(labels, 5) + 0.3 / 5
    torch.testing.assert_close(smoothed(Natural(), 0.3), -(targets * log_p).sum(1).mean())


def test_the_divergence_of_trades_and_every_inner_attack_keep_their_labels():
    model, (x, labels) = small_network(), small_batch()
    clean = model(x).detach()
    plain = F.cross_entropy(clean, labels)
    targets = F.cross_entropy(clean, labels, label_smoothing=0.3)
    whole = [TRADES(attack=KL, beta=6.0)(small_network(), x, labels, generator()).loss.detach()]
    whole.append(smoothed(TRADES(attack=KL, beta=6.0), 0.3))
    torch.testing.assert_close(whole[1] - whole[0], targets - plain)


def test_a_loss_with_a_cross_entropy_of_its_own_is_refused_rather_than_left_as_it_is():
    class Own(Loss):
        name: str = "own"

        def __call__(self, model, images, labels, generator):
            logits = model(images)
            return LossValue(F.cross_entropy(logits, labels), logits)

    with pytest.raises(
        ConfigError, match=r"needs a loss made of robust_nas\.training\.cross_entropy; 'own' is not"
    ):
        smoothed(Own(), 0.1)
    assert smoothed(Natural(), 0.1) != smoothed(Natural(), 0.2)


# eps


def test_the_attack_starts_at_a_share_of_eps_and_rises_by_the_step():
    training = TrainingContext(
        network=linear_network(),
        loss=PGDAT(attack=PGD(eps=0.4, step_size=0.1)),
        generator=generator(),
        steps=4,
    )
    hook = EpsSchedule(epochs=2, start_share=0.5).start(training)
    training.hooks.append(hook)
    found = []
    for epoch in range(3):
        for _ in range(4):
            attack = training.present_loss.attack
            found.append(attack.eps)
            assert attack.step_size == pytest.approx(attack.eps / 4)
            hook.after_backward()
        hook.end_epoch(epoch)
    assert found == pytest.approx([0.4 * min(1, 0.5 + 0.5 * k / 8) for k in range(12)])
    assert training.present_loss is training.loss


def test_an_attack_is_scaled_with_its_own_step_size_alone():
    assert PGD(eps=0.2, steps=5).scaled(0.5) == PGD(eps=0.1, steps=5)
    assert NFGSM(eps=0.2, step_size=0.3).scaled(0.5) == NFGSM(eps=0.1, step_size=0.15)


# Early stopping


def test_a_training_ends_after_its_patience_and_keeps_its_best_epoch(tmp_path, monkeypatch):
    robust = iter([0.1, 0.3, 0.2, 0.3, 0.25, 0.9])
    monkeypatch.setattr(loop._Training, "validate", lambda self: (0.5, next(robust)))
    values = options(epochs=6, hooks=[EarlyStopping(patience=3)])
    outcome, records, _ = run_training(tmp_path, values)
    assert [record["robust"] for record in records] == [0.1, 0.3, 0.2, 0.3, 0.25]
    assert (outcome.epoch, outcome.robust) == (1, 0.3)
    again, later, _ = run_training(tmp_path, values, mode="resume")  # without a validation more
    assert later == records
    assert same(again.state, outcome.state)


# SWA


def test_the_mean_of_the_epochs_is_validated_and_kept_with_its_own_statistics(tmp_path, monkeypatch):
    ends, kept = [], []
    original = loop._Training.validate

    def note(self):
        kept.append({name: t.clone() for name, t in self.state.network.state_dict().items()})
        return original(self)

    monkeypatch.setattr(loop._Training, "validate", note)

    net = network()

    def remember(job, done, total, text=""):
        if done % 3 == 0:
            ends.append({name: p.detach().clone() for name, p in net.named_parameters()})

    _, records, _ = run_training(
        tmp_path, options(epochs=4, hooks=[SWA(from_epoch=1)]), net=net, progress=remember
    )
    assert [record["swa_epochs"] for record in records] == [0, 1, 2, 3]
    for name, weight in ends[0].items():
        assert torch.equal(kept[0][name], weight)
        for epoch in (1, 2, 3):
            mean = sum(end[name] for end in ends[1 : epoch + 1]) / epoch
            torch.testing.assert_close(kept[epoch][name], mean, rtol=1e-5, atol=1e-6)
    # the first batch norm behind a convolution: its statistics are means over the batches, by an own pass
    state = kept[3]
    fresh = network()
    fresh.load_state_dict(state)
    inputs = []
    norm_name, norm = next((n, m) for n, m in fresh.named_modules() if isinstance(m, nn.BatchNorm2d))
    norm.register_forward_pre_hook(lambda module, given: inputs.append(given[0]))
    order = torch.tensor(np.concatenate([b.numpy() for b in loop.batches(24, 8, seed=0, epoch=0)]))
    fresh.eval()
    with torch.no_grad():
        for part in order.split(8):
            fresh(images(24).float(part))
    means = torch.stack([x.mean((0, 2, 3)) for x in inputs[:3]]).mean(0)
    torch.testing.assert_close(state[f"{norm_name}.running_mean"], means, rtol=1e-4, atol=1e-6)


# Extra images


def test_a_share_of_every_batch_comes_from_the_file_spread_over_the_batch(tmp_path):
    path = extra_images("bright.npz", image=np.full((3, 8, 8, 1), 255, np.uint8), label=np.array([0, 1, 2]))
    values = options(hooks=[ExtraImages(path=path, share=0.5)], epochs=1)
    with Run(tmp_path, values) as run:
        job = loop._Training(run, network(), images(24), images(8), values, Augment(), 3)
        batch = job._batch(torch.arange(8))
    extra = (batch.images == 1).flatten(1).all(1)
    assert extra.tolist() == [True, False] * 4
    assert batch.indices.tolist() == [-1, 1, -1, 3, -1, 5, -1, 7]
    assert set(batch.labels[extra].tolist()) <= {0, 1, 2}
    assert torch.equal(batch.images[~extra], images(24).float(torch.tensor([1, 3, 5, 7])))


@pytest.mark.parametrize("layout", ["NHWC", "NCHW", "NHW"])
def test_every_layout_of_an_npz_is_read_to_the_same_images(layout):
    pixels = np.random.default_rng(1).integers(256, size=(5, 1, 6, 8), dtype=np.uint8)
    stored = {"NHWC": pixels.transpose(0, 2, 3, 1), "NCHW": pixels, "NHW": pixels[:, 0]}[layout]
    path = extra_images(f"{layout}.npz", image=stored, label=np.arange(5, dtype=np.uint8))
    found = npz.load(path, (1, 6, 8), 5)
    assert np.array_equal(found.pixels.numpy(), pixels)
    assert found.labels.tolist() == [0, 1, 2, 3, 4]


BAD_FILES = {
    "float": (
        {"image": np.zeros((3, 8, 8, 1), np.float32), "label": np.arange(3)},
        "image is float32.*uint8",
    ),
    "shape": (
        {"image": np.zeros((3, 9, 8, 1), np.uint8), "label": np.arange(3)},
        r"shape \(3, 9, 8, 1\).*\(N, 8, 8, 1\)",
    ),
    "labels": ({"label": np.arange(4)}, r"label is int64 of shape \(4,\).*\(10,\) are needed"),
    "real labels": ({"label": np.zeros(10)}, "label is float64.*whole numbers"),
    "class": ({"label": np.full(10, CLASSES)}, "label 4 of image 0; labels go from 0 to 3"),
    "negative": ({"label": np.full(10, -1)}, "label -1 of image 0"),
    "none": ({"label": None}, "has no array 'label'"),
    "objects": ({"label": np.array([{}] * 10)}, "label is object"),
}


@pytest.mark.parametrize("kind", BAD_FILES)
def test_a_wrong_npz_is_refused_before_anything_starts(kind):
    changes, message = BAD_FILES[kind]
    hook = ExtraImages(path=extra_images(f"{kind}.npz", **changes))
    with pytest.raises(DataError, match=message):
        hook.refuse_data((1, 8, 8), CLASSES)


def test_a_training_with_a_wrong_npz_writes_nothing(tmp_path):
    """The images of the digits are 8 x 8, of ten classes."""
    path = extra_images("wide.npz", shape=(1, 8, 9))
    recipe = config(f"training.hooks=[{{name: extra-images, path: '{path}'}}]")
    architecture = robust_nas.ResidualArchitecture(name="tiny", stem=4, depths=(1, 1), widths=(4, 8))
    with pytest.raises(DataError, match=r"wide\.npz: image is uint8 of shape \(10, 8, 9, 1\)"):
        robust_nas.train(recipe, architecture, tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_member_that_is_shorter_than_it_says_is_refused(tmp_path):
    member = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        member, {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8, 1)}
    )
    path = tmp_path / "short.npz"
    with zipfile.ZipFile(path, "w") as archive, zipfile.ZipFile(extra_images()) as sound:
        archive.writestr("image.npy", member.getvalue() + bytes(640))
        archive.writestr("label.npy", sound.read("label.npy"))
    with pytest.raises(
        DataError, match=r"image is uint8 of shape \(1000000000000, 8, 8, 1\), but has 640 bytes"
    ):
        npz.check(str(path), (1, 8, 8), CLASSES)
    (tmp_path / "no.npz").write_text("no zip")
    with pytest.raises(DataError, match=r"no\.npz: cannot be read as \.npz"):
        npz.check(str(tmp_path / "no.npz"), (1, 8, 8), CLASSES)


def test_other_images_under_the_same_path_are_another_training(tmp_path):
    path = extra_images("changing.npz", count=4)
    first = ExtraImages(path=path)
    assert first == check(ExtraImages, to_dict(first), "again")
    extra_images("changing.npz", count=5)
    os.utime(path, (1, 1))
    second = ExtraImages(path=path)
    assert second.checksum != first.checksum
    with pytest.raises(DataError, match=r"is not the file of this training any more; its SHA-256 was"):
        first.refuse_data((1, 8, 8), CLASSES)
    with pytest.raises(ConfigError, match="there is no such file"):
        ExtraImages(path=str(tmp_path / "missing.npz"))
    os.remove(path)
    assert check(ExtraImages, to_dict(second), "a stored config") == second  # is read without the file


def test_its_path_is_seen_from_the_config(tmp_path):
    (tmp_path / "more.npz").write_bytes(b"")
    tree = {"training": {"hooks": [{"name": "extra-images", "path": "more.npz"}]}}
    found = seen_from_file(tree, tmp_path / "config.yaml")
    assert found["training"]["hooks"][0]["path"] == str(tmp_path / "more.npz")


# What is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"hooks": [{"name": "swa", "from_epoch": 2}]},
            "from_epoch is 2.*has 2 epochs; nothing would be averaged",
        ),
        ({"hooks": [{"name": "swa"}], "ema": 0.9}, r"'swa' and ema 0\.9 both average"),
        ({"hooks": [{"name": "label-smoothing", "smoothing": -0.1}]}, r"smoothing: got -0\.1"),
        (
            {"hooks": [{"name": "label-smoothing", "smoothing": 1}]},
            "smoothing: got 1; less than 1 is needed",
        ),
        (
            {"hooks": [{"name": "eps-schedule"}], "loss": "natural"},
            "'eps-schedule' scales.*'natural' has none",
        ),
        ({"hooks": [{"name": "eps-schedule", "start_share": 1.5}]}, r"start_share: got 1\.5"),
        (
            {"hooks": [{"name": "overfitting-guard"}], "loss": "natural"},
            "'overfitting-guard' watches.*has none",
        ),
        (
            {"hooks": [{"name": "overfitting-guard"}], "loss": PGDAT(attack=PGD(eps=0))},
            r"'overfitting-guard' watches.*one of eps 0",
        ),
        ({"hooks": [{"name": "early-stopping", "patience": 0}]}, "patience: got 0"),
        ({"hooks": [{"name": "extra-images", "share": 0.5}]}, r"hooks\.0\.path: missing"),
        ({"loss": {"name": "grad-align", "weight": -1, "attack": {"eps": EPS}}}, "weight: got -1"),
        (
            {"loss": LOSSES["grad-align"], "precision": "bf16"},
            "'grad-align' is differentiated twice.*float32",
        ),
    ],
)
def test_a_recipe_that_a_hook_or_loss_cannot_serve_is_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        options(**changes)
