"""Batches that fit (`batch_size: auto`), images decoded ahead, and memory that does not grow."""

import json
import threading
import tracemalloc
from types import SimpleNamespace

import pytest
from fakes import StubPipeline, make_mme
from PIL import Image

from cof.config import schema
from cof.errors import DataError, RunError
from cof.evaluate import runner
from cof.evaluate.memory import Fitted
from cof.evaluate.prefetch import ahead, feed
from cof.evaluate.runner import run
from cof.files import DiskError
from cof.store.dataset import plan_batches
from cof.types import Answer, Question, Result

PATIENCE = 600


class Small:
    """A pipeline on a device that holds `room` questions; answers do not depend on company."""

    model = SimpleNamespace(describe=lambda: {"name": "small"}, grounding="box of {question}?")

    def __init__(self, room):
        self.room, self.asked = room, []

    def prepare(self, image):
        return image

    def answer_batch(self, questions, images):
        self.asked.append(len(questions))
        if len(questions) > self.room:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        rows = zip(questions, images, strict=True)
        return [
            Result(q, cof=Answer(f"{q.text} {image.getpixel((0, 0))}", ())) for q, image in rows
        ]


@pytest.fixture
def ask(tmp_path, monkeypatch):
    data = make_mme(tmp_path / "mme", 50)

    def with_pipeline(pipeline, name="r", size="auto", **top):
        monkeypatch.setattr(runner, "build_pipeline", lambda config: pipeline)
        return run(
            schema.resolve(
                {
                    "bench": {"name": "mme", "root": str(data)},
                    "refine": {"name": "plain"},
                    "plain": False,
                    "out": str(tmp_path / "runs"),
                    "name": name,
                    "batch_size": size,
                    **top,
                }
            )
        )

    return with_pipeline


class TestAuto:
    def test_it_halves_until_it_fits_and_loses_nothing(self, ask):
        small = Small(room=20)
        got, roomy = ask(small), ask(Small(room=64), name="roomy")
        assert small.asked == [64, 32, 16, 16, 16, 16, 16, 16, 4]
        assert [one.cof for one in got.results] == [one.cof for one in roomy.results]
        assert len(got.results) == 100
        assert (got.manifest["batch_size"], roomy.manifest["batch_size"]) == (16, 64)

    def test_a_stopped_run_goes_on_with_the_size_that_fitted(self, ask):
        got = ask(Small(room=20))
        records = got.path / "records.jsonl"
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:64]))
        again = Small(room=20)
        ask(again)
        assert again.asked == [16, 16, 4]

    @pytest.mark.slow
    def test_a_question_that_does_not_fit_alone_ends_the_run(self, ask):
        with pytest.raises(RunError, match="1 questions at once do not fit"):
            ask(Small(room=0))

    def test_a_fixed_size_is_kept_to(self, ask):
        with pytest.raises(RunError, match=r"30 questions at once do not fit.*auto"):
            ask(Small(room=20), size=30)

    def test_other_errors_are_not_swallowed(self):
        def broken(questions, images):
            raise RuntimeError("shapes differ")

        with pytest.raises(RuntimeError, match="shapes differ"):
            Fitted(broken, 4, True)([Question("a", "b", "c")], [None])

    @pytest.mark.slow
    def test_torchs_own_error_counts_without_a_text(self):
        import torch

        def full(questions, images):
            if len(questions) > 1:
                raise torch.OutOfMemoryError
            return [list(questions)]

        assert Fitted(full, 4, True)(list("abcd"), list("abcd")) == [list("abcd")]


def questions_of(count):
    return [Question(str(number), f"{number}.png", "?") for number in range(count)]


class TestFeed:
    def test_the_next_images_are_decoded_while_the_model_works(self, tmp_path):
        loaded = {f"{number}.png": threading.Event() for number in range(6)}

        def load(path):
            loaded[path.name].set()
            return Image.new("RGB", (2, 2))

        fed = feed(plan_batches(questions_of(6), 2), tmp_path, 2, load)
        for number, _ in enumerate(fed):
            following = [f"{2 * number + k}.png" for k in (2, 3) if 2 * number + k < 6]
            assert all(loaded[name].wait(PATIENCE) for name in following)

    def test_images_are_decoded_side_by_side(self, tmp_path):
        both = threading.Barrier(2, timeout=PATIENCE)

        def load(path):
            both.wait()
            return Image.new("RGB", (2, 2))

        batches = plan_batches(questions_of(4), 1)
        assert [batch for batch, _ in feed(batches, tmp_path, 2, load)] == batches

    def test_no_more_than_one_batch_is_decoded_ahead(self, tmp_path):
        started = []

        def load(path):
            started.append(path.name)
            return Image.new("RGB", (2, 2))

        batches = plan_batches(questions_of(40), 4)
        for number, _ in enumerate(feed(batches, tmp_path, 2, load)):
            assert len(started) <= 4 * (number + 2)

    def test_an_image_is_decoded_once_for_its_batches(self, tmp_path):
        started = []

        def load(path):
            started.append(path.name)
            return Image.new("RGB", (2, 2))

        questions = [Question(str(n), f"{n // 3}.png", "?") for n in range(6)]
        fed = list(feed(plan_batches(questions, 2), tmp_path, 2, load))
        assert sorted(started) == ["0.png", "1.png"]
        assert fed[0][1][0] is fed[0][1][1] is fed[1][1][0]

    def test_errors_keep_their_place(self, tmp_path):
        def load(path):
            if path.name in ("1.png", "4.png"):
                raise DataError(f"{path.name} is broken")
            return Image.new("RGB", (int(path.stem) + 1, 1))

        fed = feed(plan_batches(questions_of(6), 4), tmp_path, 3, load)
        images = [image for _, opened in fed for image in opened]
        assert [str(one) if isinstance(one, DataError) else one.width for one in images] == [
            *(1, "1.png is broken", 3, 4),
            *("4.png is broken", 6),
        ]

    def test_memory_that_is_not_enough_stops_the_run_and_damages_no_image(self, tmp_path):
        def load(path):
            raise MemoryError(f"image {path.name} does not fit into memory")

        with pytest.raises(RunError, match=r"0.png does not fit into memory; set workers to 1"):
            list(feed(plan_batches(questions_of(2), 1), tmp_path, 1, load))

    def test_too_many_open_files_stop_the_run(self, tmp_path):
        def load(path):
            raise DiskError("Too many open files")

        with pytest.raises(DiskError):
            list(feed(plan_batches(questions_of(2), 1), tmp_path, 1, load))

    def test_whoever_stops_half_way_leaves_no_thread(self, tmp_path):
        before = threading.active_count()
        fed = feed(plan_batches(questions_of(8), 1), tmp_path, 4, lambda path: path)
        next(fed)
        fed.close()
        assert threading.active_count() == before


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_questions(ask, tmp_path, monkeypatch):
    """Peak of what was allocated between a quarter and the end of the answering."""
    from cof.bench import mme

    total, size = 6000, 20
    questions = [Question(str(n), "color/0001.png", f"{n}?", "color", "Yes") for n in range(total)]
    monkeypatch.setattr(mme, "read", lambda settings: questions)
    monkeypatch.setattr(runner, "_score", lambda *given: None)
    monkeypatch.setattr(runner, "load_run", lambda path: path)
    sizes = []

    class Measured(StubPipeline):
        def answer_batch(self, asked, images):
            sizes.append(tracemalloc.get_traced_memory()[0])
            answered = super().answer_batch(asked, images)
            self.batches.clear()
            return answered

    tracemalloc.start()
    path = ask(Measured(), size=size)
    tracemalloc.stop()
    with (path / "records.jsonl").open() as lines:
        assert sum(1 for line in lines if json.loads(line)["cof"]) == total
    quarter, end = sizes[len(sizes) // 4], sizes[-1]
    assert end - quarter < 100_000, f"{(end - quarter) / (0.75 * total):.0f} bytes a question"


def test_the_next_batch_is_loaded_while_this_one_is_asked_and_errors_come_in_order():
    loaded = {number: threading.Event() for number in (1, 2)}

    def load(number):
        if number == 3:
            raise DataError("the third")
        loaded[number].set()
        return number * 10

    batches = ahead([1, 2, 3, 4], load)
    assert next(batches) == (1, 10)
    assert loaded[2].wait(PATIENCE)
    assert next(batches) == (2, 20)
    with pytest.raises(DataError, match="the third"):
        next(batches)
