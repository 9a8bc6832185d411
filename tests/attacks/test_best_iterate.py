"""The best candidate: misclassified before not, then by loss; for a part of the batch as for the whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from robust_nas.attacks.best_iterate import BestIterate

COUNT = 4
number = st.sampled_from([-1.0, 0.0, 1.0, float("nan"), float("inf")])
verdicts = st.lists(st.booleans(), min_size=COUNT, max_size=COUNT)
offers = st.lists(
    st.tuples(verdicts, st.lists(number, min_size=COUNT, max_size=COUNT)), min_size=1, max_size=5
)


def candidate(value, wrong, loss):
    wrong = torch.tensor(wrong)
    logits = torch.stack([(~wrong).float(), wrong.float()], dim=1)  # class 0 is the label
    return torch.full((COUNT, 1, 1, 1), float(value)), logits, torch.tensor(loss)


def empty():
    return BestIterate(torch.full((COUNT, 1, 1, 1), -1.0), torch.zeros(COUNT, dtype=torch.long))


@given(offers)
def test_the_maximum_of_the_order_is_kept(drawn):
    best = empty()
    for value, (wrong, loss) in enumerate(drawn):
        best.update(*candidate(value, wrong, loss))
    for row in range(COUNT):
        keys = [(wrong[row], loss[row] if loss[row] == loss[row] else -torch.inf) for wrong, loss in drawn]
        assert best.images[row].item() == keys.index(max(keys))  # the first of equals
        assert bool(best.wrong[row]) == max(keys)[0]


@given(offers, verdicts)
def test_rows_are_offered_as_the_whole_batch_is(drawn, mask):
    rows = torch.tensor(mask).nonzero().squeeze(1)
    by_rows, whole = empty(), empty()
    for value, (wrong, loss) in enumerate(drawn):
        x, logits, loss = candidate(value, wrong, loss)
        if value == 0:
            by_rows.update(x, logits, loss)
            whole.update(x, logits, loss)
            continue
        first = by_rows.images
        kept = first.clone()
        assert torch.equal(
            by_rows.improved_by(loss[rows], rows) & ~loss[rows].isnan(),
            (~by_rows.wrong | (loss > by_rows.loss))[rows] & ~loss[rows].isnan(),
        )
        said = by_rows.update(x[rows], logits[rows], loss[rows], rows)
        assert torch.equal(first, kept)  # the tensor of an earlier offer is never written to
        offered = torch.tensor(mask)
        logits = logits.where(offered[:, None], torch.tensor([1.0, 0.0]))  # right, and of the lowest loss
        assert torch.equal(said, whole.update(x, logits, loss.where(offered, -torch.inf))[rows])
    assert torch.equal(by_rows.images, whole.images)
    assert torch.equal(by_rows.loss, whole.loss)
    assert torch.equal(by_rows.wrong, whole.wrong)
    assert torch.equal(by_rows.unbroken(), (~whole.wrong).nonzero().squeeze(1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_logits_that_are_not_finite_are_wrong_and_kept(value):
    best = empty()
    best.update(*candidate(0, [False, False, True, True], [0.0] * COUNT))
    x, logits, loss = candidate(1, [False] * COUNT, [torch.nan, -torch.inf, torch.nan, -1.0])
    logits[:, 1] = value
    assert best.update(x, logits, loss).all()
    # Before a right one in any case, before a wrong one by its loss, which is the highest where it is NaN.
    assert best.images.flatten().tolist() == [1.0, 1.0, 1.0, 0.0]
    assert len(best.unbroken()) == 0


def test_a_wrong_answer_counts_without_a_loss():
    best = empty()
    best.update(*candidate(0, [False] * COUNT, [0.0] * COUNT))
    assert best.update(*candidate(1, [True] * COUNT, [torch.nan] * COUNT)).all()
    assert best.images.flatten().tolist() == [1.0] * COUNT
    best.update(*candidate(2, [True] * COUNT, [-5.0] * COUNT))
    assert best.images.flatten().tolist() == [2.0] * COUNT
