"""Controls as coarse stages: where each looks, that batches play no part, and what is refused."""

import gzip
import json
from pathlib import Path

import pytest
from fakes import StubModel
from PIL import Image

from cof.batch import Batch
from cof.config import schema
from cof.errors import ConfigError, DataError
from cof.locate import centre, file, oracle, random, shuffled, whole
from cof.regions.boxes import shared_area
from cof.types import Box, Question

SMALL = Box(0.1, 0.1, 0.3, 0.4)


def question(number, image=None, boxes=(SMALL,)):
    return Question(f"q{number}", image or f"{number}.png", "What?", boxes=boxes)


def boxes(stage, questions, settings=None):
    model = StubModel()
    batch = Batch.of(model, questions, [Image.new("RGB", (8, 8))] * len(questions))
    regions = stage.locate(batch, settings or stage.Config())
    assert {region.source for region in regions} == {stage.__name__.rpartition(".")[2]}
    assert not model.seen
    return [region.boxes for region in regions]


@pytest.fixture
def kept(tmp_path):
    """A file with two questions an image: q0 and q1 about a, q2 and q3 about b, ..."""
    path = tmp_path / "boxes.jsonl"
    rows = [
        {"id": f"q{i}", "image": "abc"[i // 2], "boxes": [[0, 0, 0.1 * (i + 1), 0.5]]}
        for i in range(6)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


ASKED = [question(i, "abc"[i // 2]) for i in range(6)]


class TestOracle:
    def test_the_region_is_the_truth_and_a_question_without_has_none(self):
        assert boxes(oracle, [question(0), question(1, boxes=())]) == [(SMALL,), ()]

    def test_a_benchmark_without_boxes_is_refused_by_name(self):
        oracle.check_dataset("mme", [question(0), question(1, boxes=())], oracle.Config())
        with pytest.raises(DataError, match=r"mme has no ground-truth boxes .* 1 questions"):
            oracle.check_dataset("mme", [question(0, boxes=())], oracle.Config())


def test_whole_wants_everything():
    batch = Batch.of(StubModel(), [question(0)], [Image.new("RGB", (8, 8))])
    (region,) = whole.locate(batch, whole.Config())
    assert region.everything


class TestCentre:
    @pytest.mark.parametrize("area", [0.01, 0.25, 1.0])
    def test_the_box_has_the_area_and_the_middle(self, area):
        (((box),),) = boxes(centre, [question(0)], centre.Config(area))
        assert (box.x1 - box.x0) * (box.y1 - box.y0) == pytest.approx(area)
        assert (box.x0 + box.x1, box.y0 + box.y1) == (pytest.approx(1), pytest.approx(1))

    @pytest.mark.parametrize("area", [0.0, -1.0, 1.1, float("nan")])
    def test_an_impossible_area_is_refused(self, area):
        with pytest.raises(ValueError, match="area="):
            centre.Config(area)


class TestRandom:
    @pytest.mark.parametrize("box", [SMALL, Box(0, 0, 0.5, 0.5), Box(0.4, 0, 0.6, 1)])
    def test_same_size_and_elsewhere(self, box):
        for number in range(50):
            ((moved,),) = boxes(random, [question(number, boxes=(box,))])
            assert moved.x1 - moved.x0 == pytest.approx(box.x1 - box.x0)
            assert moved.y1 - moved.y0 == pytest.approx(box.y1 - box.y0)
            assert shared_area([moved], [box]) < 0.15 * (box.x1 - box.x0) * (box.y1 - box.y0)

    def test_several_boxes_avoid_the_truth_and_each_other(self):
        own = (SMALL, Box(0.6, 0.6, 0.8, 0.9))
        (moved,) = boxes(random, [question(0, boxes=own)])
        assert len(moved) == 2
        assert shared_area(moved, own) == pytest.approx(0, abs=1e-9)
        assert shared_area(moved[:1], moved[1:]) == pytest.approx(0, abs=1e-9)

    def test_a_large_box_overlaps_no_more_than_it_must(self):
        large = Box(0, 0, 0.8, 0.8)
        ((moved,),) = boxes(random, [question(0, boxes=(large,))])
        assert shared_area([moved], [large]) == pytest.approx(0.6 * 0.6, abs=0.05)

    def test_the_batch_plays_no_part_and_the_seed_does(self):
        asked = [question(i) for i in range(8)]
        together = boxes(random, asked)
        assert together == [boxes(random, [one])[0] for one in reversed(asked)][::-1]
        assert len(set(together)) == 8
        assert together != boxes(random, asked, random.Config(seed=1))

    def test_boxes_of_a_file(self, kept):
        (first, *_) = boxes(random, ASKED, random.Config(of=kept))
        assert first[0].x1 - first[0].x0 == pytest.approx(0.1)

    def test_no_truth_is_refused(self):
        with pytest.raises(DataError, match=r"pope has no .* locate\.of=RUN_FOLDER"):
            random.check_dataset("pope", [question(0, boxes=())], random.Config())


class TestShuffled:
    def test_every_box_is_given_once_and_to_another_image(self, kept):
        found = boxes(shuffled, ASKED, shuffled.Config(kept))
        widths = [round(box.x1 * 10) - 1 for (box,) in found]
        assert sorted(widths) == list(range(6))
        assert all(giver // 2 != taker // 2 for taker, giver in enumerate(widths))

    def test_the_batch_plays_no_part_and_the_seed_does(self, kept):
        together = boxes(shuffled, ASKED, shuffled.Config(kept))
        assert together == [boxes(shuffled, [one], shuffled.Config(kept))[0] for one in ASKED]
        others = [boxes(shuffled, ASKED, shuffled.Config(kept, seed=seed)) for seed in range(9)]
        assert any(other != together for other in others)

    @pytest.mark.parametrize("sizes", [(1, 1), (3, 2, 1), (5, 5), (4, 1, 1, 1, 1)])
    @pytest.mark.parametrize("seed", range(5))
    def test_any_mix_of_images_changes_hands(self, sizes, seed):
        asked = tuple((f"{i}.{k}", str(i)) for i, n in enumerate(sizes) for k in range(n))
        got = shuffled.permutation(asked, seed, "f")
        assert sorted(got.values()) == sorted(got)
        assert all(taker[0] != giver[0] for taker, giver in got.items())

    def test_one_image_with_most_questions_is_refused(self):
        with pytest.raises(DataError, match=r"2 of 3 questions are about the image 'a'"):
            shuffled.permutation((("1", "a"), ("2", "a"), ("3", "b")), 0, "f")


class TestFile:
    def test_boxes_by_question(self, kept):
        found = boxes(file, [ASKED[3], ASKED[0]], file.Config(kept))
        assert [box.x1 for (box,) in found] == [pytest.approx(0.4), pytest.approx(0.1)]

    def test_a_run_folder_gives_its_coarse_or_its_true_boxes(self, tmp_path):
        record = {
            "index": 0,
            "id": "q0",
            "image": "a",
            "truth": [[0, 0, 1, 0.5]],
            "region": {"boxes": []},
        }
        failed = {**record, "index": 1, "id": "q1", "region": None}
        text = json.dumps(record) + "\n" + json.dumps(failed) + "\n"
        (tmp_path / "records.jsonl").write_text(text)
        asked = [question(0), question(1)]
        assert boxes(file, asked, file.Config(str(tmp_path))) == [(), ()]
        assert boxes(file, asked[:1], file.Config(str(tmp_path), truth=True)) == [
            (Box(0, 0, 1, 0.5),)
        ]

    def test_packed_and_unmerged_runs_are_read_alike(self, tmp_path):
        lines = [
            json.dumps({"index": i, "id": f"q{i}", "region": {"boxes": [[0, 0, 0.1 * i + 0.1, 1]]}})
            for i in range(4)
        ]
        for name in ("one", "shards", "packed"):
            (tmp_path / name).mkdir()
        text = "".join(line + "\n" for line in lines)
        (tmp_path / "one" / "records.jsonl").write_text(text)
        for rank in (0, 1):
            part = "".join(line + "\n" for line in lines[rank::2])
            (tmp_path / "shards" / f"records-{rank}.jsonl").write_text(part)
        (tmp_path / "packed" / "records.jsonl.gz").write_bytes(gzip.compress(text.encode()))
        settings = [file.Config(str(tmp_path / name)) for name in ("one", "shards", "packed")]
        first, *others = (boxes(file, ASKED[:4], one) for one in settings)
        assert others == [first, first]
        assert [round(box.x1, 6) for (box,) in first] == [0.1, 0.2, 0.3, 0.4]
        assert len({file.source(one) for one in settings}) == 1

    def test_a_folder_without_records(self, tmp_path):
        with pytest.raises(DataError, match="a folder without records"):
            file.check_dataset("mme", ASKED, file.Config(str(tmp_path)))

    def test_missing_questions_are_counted_and_named(self, kept):
        with pytest.raises(DataError, match="no boxes for 2 of 8 questions, the first is 'q6'"):
            file.check_dataset("mme", [*ASKED, question(6), question(7)], file.Config(kept))
        with pytest.raises(DataError, match="no boxes for question 'q6'"):
            boxes(file, [question(6)], file.Config(kept))

    @pytest.mark.parametrize(
        ("line", "message"),
        [
            ('{"id": "q9", "boxes": [[0, 0, 2, 1]]}', r":7: box \(0, 0, 2, 1\).*look like pixels"),
            ('{"id": "q9", "boxes": [[0, 0, 1, 1.2]]}', r":7: box \(0, 0, 1, 1.2\) needs"),
            ('{"id": "q9", "boxes": [[0, 0, true, 1]]}', r":7: box \[0, 0, True, 1\], expected"),
            (
                '{"id": "q9", "boxes": null}',
                r":7: boxes None, expected \[\[x0, y0, x1, y1\], ...\]",
            ),
            ('{"id": "q9"}', r":7: no 'boxes'; there is: id"),
            ('{"id": "q9", "region": [1]}', r":7: expected a JSON object, found \[1\]"),
            ('{"id": "q0", "boxes": []}', r":7: question 'q0' occurs twice"),
            ("{", ":7: not JSON"),
        ],
    )
    def test_a_bad_line_is_named(self, kept, line, message):
        path = Path(kept)
        path.write_text(path.read_text() + line + "\n")
        with pytest.raises(DataError, match=message):
            file.check_dataset("mme", ASKED, file.Config(kept))

    def test_truth_of_a_plain_file_is_refused(self, kept):
        with pytest.raises(DataError, match="truth is only kept by a run's records"):
            file.check_dataset("mme", ASKED, file.Config(kept, truth=True))

    def test_a_file_that_changed_is_read_again(self, kept):
        before = boxes(file, ASKED[:1], file.Config(kept))
        path = Path(kept)
        path.write_text(path.read_text().replace("[0, 0, 0.1,", "[0, 0, 0.75,"))
        assert boxes(file, ASKED[:1], file.Config(kept)) != before

    def test_no_file(self):
        with pytest.raises(DataError, match="gone: cannot be read"):
            file.check_dataset("mme", ASKED, file.Config("gone"))


@pytest.mark.parametrize("name", ["file", "shuffled"])
def test_a_path_is_asked_for(name):
    with pytest.raises(ConfigError, match=r"locate\.(path|of): has no default"):
        schema.resolve({"bench": {"name": "mme", "root": "x"}, "locate": {"name": name}})
