"""Garbage collection is paused while torch and Lightning are imported, and only then."""

import gc
import sys

import pytest

from fer_lightning.core.garbage import gc_paused, pause_gc_before_import, resume_gc


@pytest.fixture(autouse=True)
def _collecting():
    """Start with garbage collection, and with nothing hidden from it."""
    gc.enable()
    yield
    gc.enable()
    gc.unfreeze()


def test_it_is_paused_before_the_first_import_alone():
    pause_gc_before_import("module_of_this_test")
    assert not gc.isenabled()
    resume_gc()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
    sys.modules["module_of_this_test"] = sys.modules[__name__]
    try:
        pause_gc_before_import("module_of_this_test")
    finally:
        del sys.modules["module_of_this_test"]
    assert gc.isenabled()


def test_what_a_later_job_leaves_is_collected():
    """Only a pause hides objects from the collection: a job after the first has none."""
    resume_gc()
    assert gc.get_freeze_count() == 0


def test_a_command_ends_without_a_collection():
    with gc_paused():
        assert not gc.isenabled()
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0
