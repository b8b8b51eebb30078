"""The day of `scripted_day.py`, in a quarter of a minute or a little more."""

from __future__ import annotations

import pytest

import scripted_day


@pytest.mark.parametrize(("prompts", "kills", "day"), [(10_000, (1500, 3300, 5200, 7400, 9100), 12.0)])
def test_killed_five_times_in_a_bad_day_all_are_answered_and_next_to_nothing_is_paid_twice(prompts, kills, day, tmp_path) -> None:
    found = scripted_day.run(prompts, kills, day, str(tmp_path / "run.db"))
    assert found.right == prompts
    assert found.twice <= found.kills * scripted_day.CONCURRENCY
    assert found.requests <= 1.05 * found.least, found
    # The script's failures are few as well: an outage costs probes, not an attempt for each that waits.
    assert found.failures < 0.1 * prompts, found
