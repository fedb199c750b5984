"""Entries of values.json: intervals of shares."""

import pytest

from kit.evaluation import agreement
from kit.published import papers
from kit.report.entries import Sample, share_ends


def test_shares_get_wilsons_interval_with_copies_counted_once():
    number = papers.load("cad").number("table-4/vgg19/accuracy")
    found = share_ends(number, 97.0, Sample(1311))
    exact = agreement.share(0.97 * 1311, 1311)
    assert found == pytest.approx((100 * exact.low, 100 * exact.high))
    copies = share_ends(number, 97.0, Sample(1311, 1000))
    assert copies[1] - copies[0] > found[1] - found[0]
    images = papers.load("cad").number("figure-10/all-three/errors")
    low, high = share_ends(images, 6.0, Sample(1311))
    assert 0 < low < 6 < high < 20


@pytest.mark.parametrize(
    ("key", "value_id", "ours"),
    [
        ("br35h", "graphic-3/cnn/auc", 99.0),
        ("br35h", "table-1/cnn.mean/accuracy", 97.0),
        ("cad", "table-5/vgg19/accuracy", 97.0),
        ("cad", "table-4/vgg19/accuracy", None),
        ("cad", "table-4/vgg19/accuracy", 120.0),
    ],
)
def test_everything_else_gets_none(key, value_id, ours):
    assert share_ends(papers.load(key).number(value_id), ours, Sample(100)) is None
