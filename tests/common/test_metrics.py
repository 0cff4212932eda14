from common import metrics


def test_sums_add_and_divide_once():
    total = {}
    for weight, loss in [(3.0, 6.0), (1.0, 10.0)]:
        total = metrics.add(total, {"weight": weight, "loss": loss})
    assert metrics.means(total, "train/") == {"train/loss": 4.0}


def test_nothing_added_has_no_mean():
    assert metrics.means({}) == {}
    assert metrics.means({"weight": 0.0, "loss": 0.0}) == {}
