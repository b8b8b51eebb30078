"""The day of `scripted_day.py`, shorter: alone, that asks ten thousand."""

from __future__ import annotations

import pytest

import scripted_day


@pytest.mark.parametrize(("prompts", "kills", "day"), [(2_000, (300, 650, 1050, 1450, 1800), 5.0)])
def test_killed_five_times_in_a_bad_day_all_are_answered_and_next_to_nothing_is_paid_twice(prompts, kills, day, tmp_path) -> None:
    found = scripted_day.run(prompts, kills, day, str(tmp_path / "run.db"))
    assert found.right == prompts
    assert found.twice <= found.kills * scripted_day.CONCURRENCY
    assert found.requests <= 1.05 * found.least, found
    # The script's failures are few as well: an outage costs probes, not an attempt for each that waits.
    assert found.failures < 0.2 * prompts, found
