"""A line that is added to METRICS reaches the files and ``monitor``."""

import numpy as np
import pytest

from fer_lightning.core.metrics import METRICS, MetricSpec
from fer_lightning.evaluation.metrics import compute_metrics
from fer_lightning.evaluation.predictions import OK, Predictions
from fer_lightning.report.tables import metric_rows
from tests.extending.conftest import SMALL
from tests.in_process import epochs, fit

JACCARD = MetricSpec(
    key="jaccard",
    title="Jaccard index",
    unit="%",
    target="torchmetrics.classification.MulticlassJaccardIndex",
)


@pytest.fixture
def _with_jaccard():
    METRICS.append(JACCARD)
    yield
    METRICS.remove(JACCARD)


@pytest.mark.usefixtures("_with_jaccard")
def test_own_metric_is_in_the_csv_and_selects_the_checkpoint(tmp_path):
    run, data, _ = fit(*SMALL, "logger=none", "monitor=val/jaccard", folder=tmp_path)
    rows = epochs(run)
    assert {"train/jaccard", "val/jaccard"} <= rows[0].keys()
    assert data.trainer.checkpoint_callback.best_score == pytest.approx(
        max(row["val/jaccard"] for row in rows)
    )


@pytest.mark.usefixtures("_with_jaccard")
def test_own_metric_is_in_the_results():
    predictions = Predictions(
        ids=np.array([f"test/x/{number}" for number in range(4)]),
        labels=np.array([0, 1, 1, 0]),
        probs=np.eye(2, dtype=np.float32)[[0, 1, 0, 0]],
        status=np.full(4, OK),
        leaked=np.zeros(4, bool),
        classes=("a", "b"),
    )
    found = compute_metrics(predictions)
    assert found["jaccard"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert ("Jaccard index, %", "58.33", "—", "58.33", "—") in list(metric_rows(found))
