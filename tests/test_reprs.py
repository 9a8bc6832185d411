"""What a notebook prints of data, models and evaluations is short, and says the figure with its threat model."""

import torch

import robust_nas
from robust_nas.attacks import FGSM
from robust_nas.data import DataOptions
from robust_nas.nets import build_network, read_model, save_model
from robust_nas.nets.model import ModelDescription

NETWORK = robust_nas.MLPArchitecture(name="mlp", depth=1, width=4)


def test_data_and_models_are_named_with_their_sizes(tmp_path):
    dataset = robust_nas.load_dataset(DataOptions(limit=50))
    assert repr(dataset) == "<Dataset digits: 50 training and 360 test images of 1x8x8, 10 classes>"
    assert repr(dataset.test) == "<Images: 360 of 1x8x8, on cpu>"
    described = ModelDescription(
        input_shape=(1, 8, 8), class_names=dataset.class_names, mean=(0.0,), std=(1.0,)
    )
    network = build_network(NETWORK, input_shape=(1, 8, 8))
    save_model(tmp_path, NETWORK, network.state_dict(), described)
    assert repr(read_model(tmp_path)) == f"<Model mlp: 1x8x8 to 10 classes, 310 params, {tmp_path}>"


def test_an_evaluation_is_one_line_and_a_table_without_markup_of_others():
    dataset = robust_nas.load_dataset(DataOptions())
    network = build_network(NETWORK, input_shape=(1, 8, 8)).eval()
    few = dataset.test.subset(torch.arange(20))
    found = robust_nas.evaluate(
        network, few, robust_nas.ThreatModel(eps=0.1), [FGSM(eps=0.1)], findings="none"
    )
    accuracy = f"{100 * found.robust.accuracy:.1f} % robust"
    assert repr(found).startswith("<Evaluation: ")
    assert f"{accuracy} (linf eps 0.1, 20 images, attacks of its own, seed 0)" in repr(found)
    assert len(repr(found)) < 160
    table = found._repr_html_()
    assert table.count("<tr>") == 4  # header, clean, the attack, the worst case
    assert "&lt;Evaluation" in table
