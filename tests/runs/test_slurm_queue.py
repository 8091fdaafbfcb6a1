"""What Slurm says of jobs, as its programs print it."""

import pytest

from fer_lightning.runs import slurm_queue
from fer_lightning.runs.slurm_queue import Queue, was_preempted


@pytest.fixture
def slurm(monkeypatch):
    """What the programs print next, and a clock that each question moves on."""
    answers, clock = [], [0.0]

    def output(*command):
        clock[0] += 11
        return answers.pop(0)

    monkeypatch.setattr(slurm_queue, "_output", output)
    monkeypatch.setattr(slurm_queue.time, "monotonic", lambda: clock[0])
    return answers, clock


def ask(queue, clock, job):
    clock[0] += 11
    return queue.has_ended(job)


def test_a_job_has_ended_once_slurm_has_said_so_twice(slurm):
    answers, clock = slurm
    answers += ["17_0 RUNNING None\n17_1 PENDING (Priority)\n", "17_0 FAILED NonZeroExitCode\n", ""]
    queue = Queue()
    assert [ask(queue, clock, "17_0") for _ in range(3)] == [False, False, True]


def test_a_job_that_is_queued_again_has_not_ended(slurm):
    answers, clock = slurm
    answers += ["17 RUNNING None\n", "", "17 PENDING BeginTime\n", "17 RUNNING None\n"]
    queue = Queue()
    assert [ask(queue, clock, "17") for _ in range(4)] == [False] * 4


def test_slurm_that_does_not_answer_ends_no_job(slurm):
    answers, clock = slurm
    answers += ["17 RUNNING None\n", None, None, None]
    queue = Queue()
    assert [ask(queue, clock, "17") for _ in range(4)] == [False] * 4


def test_why_a_job_waits_in_vain_is_said_once(slurm, caplog):
    answers, clock = slurm
    answers += ["17 PENDING Priority\n", *["17 PENDING (PartitionTimeLimit)\n"] * 2]
    queue = Queue()
    with caplog.at_level("WARNING", logger="fer_lightning"):
        assert not any(ask(queue, clock, "17") for _ in range(3))
    assert [record.getMessage() for record in caplog.records] == [
        "Slurm lets job 17 wait: PartitionTimeLimit; if that does not pass, change hydra.launcher"
    ]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("JobId=12 JobState=RUNNING Reason=None PreemptTime=2026-11-28T05:20:08 Requeue=1", True),
        (
            "JobId=12 JobState=RUNNING Reason=None PreemptEligibleTime=2026-11-28T05:20:08 PreemptTime=None",
            False,
        ),
        ("JobId=12 JobState=CANCELLED Reason=None PreemptTime=None", False),
        ("JobId=12 JobState=PENDING Reason=BeginTime PreemptTime=2026-11-28T05:20:08", False),
        (None, False),
    ],
    ids=["preempted", "stopped", "cancelled", "queued again", "no answer"],
)
def test_only_a_preempted_job_asks_for_another_start(slurm, answer, expected):
    slurm[0].append(answer)
    assert was_preempted() == expected
