"""The table of what full runs should cost: its formula against a slow count, and the page."""

import math
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
COST = SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "run_cost.py")))


def test_the_page_has_the_table_that_the_script_prints():
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    assert COST.table() in page
    for asked in COST.BENCHES:
        assert str(asked.images) in page


@pytest.mark.parametrize("gpus", [1, 3, 64])
def test_the_busiest_gpu_is_the_first_to_be_dealt_a_batch(gpus):
    asked = COST.BENCHES[0]
    batches = [range(start, start + 32) for start in range(0, asked.questions, 32)]
    dealt = max(len(batches[rank::gpus]) for rank in range(gpus))
    each = COST.batch_seconds(COST.MEASURED, asked, "all")
    assert COST.seconds(COST.MEASURED, asked, "all", gpus) == pytest.approx(dealt * each)


def test_a_batch_is_what_its_parts_take():
    """Two questions an image: 16 looks and prefixes, then 32 of everything else."""
    asked, costs, place = COST.BENCHES[0], COST.CAPTURED, 0.610 / 32 / 626
    looked = 16 * (0.001 + 601 * place)
    for scope, fine in (("all", 327), ("text", 25)):
        suffixes = 32 * (43 + 25 + fine) * place
        whole = looked + suffixes + 29 * 0.0131
        assert COST.batch_seconds(costs, asked, scope) == pytest.approx(whole)
    plain = looked + 32 * 25 * place + 2 * 0.0131
    assert COST.batch_seconds(costs, asked, "plain") == pytest.approx(plain)


def test_more_gpus_never_take_longer_and_scopes_are_in_order():
    for costs in (COST.MEASURED, COST.CAPTURED):
        for asked in COST.BENCHES:
            times = [COST.seconds(costs, asked, "all", gpus) for gpus in range(1, 65)]
            assert times == sorted(times, reverse=True)
            assert times[0] == pytest.approx(
                math.ceil(asked.questions / 32) * COST.batch_seconds(costs, asked, "all")
            )
            plain, text, full = (
                COST.seconds(costs, asked, scope, 8) for scope in ("plain", "text", "all")
            )
            assert plain < text < full


@pytest.mark.parametrize(
    ("value", "said"), [(1.24, "1.2 s"), (45.2, "45 s"), (99.4, "99 s"), (192, "3.2 min")]
)
def test_how_times_are_shown(value, said):
    assert COST.shown(value) == said
