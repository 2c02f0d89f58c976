"""What workers make ready ahead of the model: the same bits, off the model's thread, bounded."""

import gc
import hashlib
import json
import threading

import numpy as np
import pytest
import torch
from fakes import StubModel, make_mme
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from cof.batch import Batch, Prepared
from cof.config import schema
from cof.errors import RunError
from cof.evaluate import runner
from cof.evaluate.runner import run
from cof.images import frame_bytes, normalised, preprocess, to_model_frame, to_rgb
from cof.locate import prompt
from cof.models.base import Limits
from cof.models.common.feeding import side_by_side, stacked
from cof.models.llava.pixels import CLIP_MEAN, CLIP_STD
from cof.pipeline import CoF, Settings
from cof.store.records import comparable
from cof.store.replies import ReplyCache
from cof.types import Question

PATIENCE = 600
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
MODES = ["RGB", "L", "RGBA", "P", "CMYK", "I;16", "1", "LA"]


def published(frame, mean, std):
    """The published steps, an image at a time: the oracle."""
    pixels = torch.from_numpy(np.array(frame)).permute(2, 0, 1).float()
    centre, scale = (torch.tensor(values, dtype=torch.float32) for values in (mean, std))
    return (pixels / 255 - centre[:, None, None]) / scale[:, None, None]


def noise(width, height, mode="RGB", seed=0):
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    return image.convert("L").convert("I;16") if mode == "I;16" else image.convert(mode)


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 300), st.integers(1, 300), st.sampled_from(MODES), st.booleans(), st.integers(0)
)
def test_bytes_of_any_picture_become_the_published_pixels_to_the_bit(width, height, mode, pad, n):
    image = to_rgb(noise(width, height, mode, n))
    frame = to_model_frame(image, 56, tuple(int(255 * value) for value in CLIP_MEAN), pad=pad)
    expected = published(frame, CLIP_MEAN, CLIP_STD)
    ahead = frame_bytes(image, 56, CLIP_MEAN, pad=pad)
    assert (ahead.dtype, tuple(ahead.shape)) == (torch.uint8, (56, 56, 3))
    assert torch.equal(
        normalised(stacked([ahead] * 2, torch.device("cpu")), CLIP_MEAN, CLIP_STD)[1], expected
    )
    assert torch.equal(preprocess(image, 56, CLIP_MEAN, CLIP_STD, pad=pad), expected)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_every_byte_of_every_channel_has_the_published_value_on_every_device(device, dtype):
    table = torch.arange(256, dtype=torch.uint8)[None, :, None].expand(1, 256, 3).contiguous()
    expected = published(table.numpy(), CLIP_MEAN, CLIP_STD).to(dtype)
    found = normalised(stacked([table], torch.device(device)), CLIP_MEAN, CLIP_STD).to(dtype)
    assert torch.equal(found[0].cpu(), expected)


@pytest.mark.parametrize("count", [1, 3])
def test_features_are_those_of_the_published_pixels_to_the_bit(llava, count):
    images = [noise(90 + 30 * number, 60, seed=number) for number in range(count)]
    how = llava.pixels
    fill = tuple(int(255 * value) for value in how.mean)
    frames = [to_model_frame(image, how.side, fill, pad=how.pad) for image in images]
    pixels = torch.stack([published(frame, how.mean, how.std) for frame in frames])
    with torch.inference_mode():
        expected = llava.network.get_image_features(pixel_values=pixels).pooler_output
    ahead = [llava.prepare(image) for image in images]
    for views in (llava.look(images), llava.look(images, ahead)):
        for view, features in zip(views, expected, strict=True):
            assert torch.equal(view.features, features)


class Spied(StubModel):
    """Prepares, and notes in which thread; `look` notes what it was given."""

    def __init__(self):
        super().__init__()
        self.threads, self.given = [], []

    def prepare(self, image):
        self.threads.append(threading.current_thread())
        return image.size

    def look(self, images, prepared=None):
        self.given.append(prepared)
        return super().look(images)


class TestContract:
    def test_prepared_images_reach_the_model_once_each_in_order(self):
        model = Spied()
        one, two = (Prepared.of(model, noise(8 + n, 6)) for n in range(2))
        asked = [Question(str(n), "i", "?") for n in range(3)]
        batch = Batch.of(model, asked, [one, two, one])
        assert model.given == [[(8, 6), (9, 6)]]
        assert batch.images == [one.image, two.image, one.image]
        assert batch.views[0] is batch.views[2]

    def test_bare_images_and_crops_are_shown_as_they_are(self):
        model = Spied()
        image = noise(8, 6)
        batch = Batch.of(model, [Question("a", "i", "?")], [image])
        batch.look([image.crop((0, 0, 4, 4))])
        assert model.given == [None, None]
        Batch.of(
            model, [Question(n, "i", "?") for n in "ab"], [Prepared.of(model, image), noise(4, 4)]
        )
        assert model.given[2:] == [None]

    def test_a_model_of_todays_contract_never_hears_of_it(self):
        class Old(StubModel):
            def look(self, images):
                return super().look(images)

        picture = Prepared.of(Old(), noise(8, 6))
        assert picture.ahead is None
        assert len(Batch.of(Old(), [Question("a", "i", "?")], [picture]).views) == 1

    def test_nor_does_a_llava_whose_look_somebody_replaced(self, llava, monkeypatch):
        look, seen = llava.look, []

        def mirrored(images):
            seen.append(len(images))
            return look([image.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for image in images])

        picture = noise(64, 48)
        expected = mirrored([picture])[0].features
        monkeypatch.setattr(llava, "look", mirrored)
        batch = Batch.of(llava, [Question("a", "i", "?")], [CoF(llava).prepare(picture)])
        assert seen == [1, 1]
        assert torch.equal(batch.views[0].features, expected)

    def test_images_that_nobody_prepared_are_prepared_side_by_side(self, monkeypatch):
        monkeypatch.setattr("os.cpu_count", lambda: 2)
        both = threading.Barrier(2, timeout=PATIENCE)

        def prepare(number):
            both.wait()
            return -number

        assert side_by_side(prepare, [1, 2, 3, 4]) == [-1, -2, -3, -4]


def test_one_pass_is_the_same_from_images_and_from_pictures(llava):
    images = [noise(90, 60), noise(50, 80, seed=1)]
    asked = [Question("a", "x", "What?"), Question("b", "y", "Why?")]
    cof = CoF(llava, Settings(locate=prompt.Config(max_new_tokens=5), limits=Limits(4)))
    plain = cof.answer_batch(asked, images)
    ahead = cof.answer_batch(asked, [cof.prepare(image) for image in images])
    for one, two in zip(plain, ahead, strict=True):
        assert (one.cof.tokens, one.cof.logprobs) == (two.cof.tokens, two.cof.logprobs)


class TestDigests:
    def test_they_are_remembered_as_long_as_the_image_lives(self, tmp_path, monkeypatch):
        cache, image = ReplyCache(tmp_path / "r.sqlite"), noise(8, 6)
        expected = hashlib.sha256(b"RGB(8, 6)" + image.tobytes()).hexdigest()
        assert cache.digest(image) == expected
        with monkeypatch.context() as patch:
            patch.setattr(Image.Image, "tobytes", None)
            assert cache.digest(image) == expected
        del image
        gc.collect()
        assert not cache._digests

    def test_preparing_computes_them_where_there_is_a_cache(self, tmp_path, monkeypatch):
        cache, image = ReplyCache(tmp_path / "r.sqlite"), noise(8, 6)
        CoF(StubModel(), cache=cache).prepare(image)
        assert len(cache._digests) == 1
        monkeypatch.setattr(Image.Image, "tobytes", None)
        CoF(StubModel()).prepare(image)


class TestRuns:
    @pytest.fixture
    def ask(self, tmp_path, monkeypatch):
        data = make_mme(tmp_path / "mme", 6)

        def with_model(loaded, name="r", **top):
            monkeypatch.setattr("cof.models.llava.load", lambda config: loaded)
            bench = {"name": "mme", "root": str(data)}
            base = {"bench": bench, "out": str(tmp_path / "runs"), "name": name, "batch_size": 4}
            return run(schema.resolve({**base, **top}))

        return with_model

    @pytest.mark.parametrize("workers", [1, 4])
    def test_everything_is_made_ready_in_workers(self, ask, tmp_path, workers, monkeypatch):
        hashed, digest = [], ReplyCache.digest

        def noted(self, image):
            if id(image) not in self._digests:
                hashed.append(threading.current_thread())
            return digest(self, image)

        monkeypatch.setattr(ReplyCache, "digest", noted)
        model = Spied()
        ask(model, workers=workers, cache=str(tmp_path / "replies"))
        assert [len(sizes) for sizes in model.given] == [2, 2, 2]
        for threads in (model.threads, hashed):
            assert len(threads) == 6
            assert all(thread.name.startswith("images") for thread in threads)

    def test_the_next_batch_is_made_ready_while_the_model_works_and_no_more(self, ask):
        class Waiting(Spied):
            """Its tower stops until the images of the next batch are prepared."""

            def __init__(self):
                super().__init__()
                self.ready = [threading.Event() for _ in range(6)]
                self.most = []

            def prepare(self, image):
                found = super().prepare(image)
                self.ready[len(self.threads) - 1].set()
                return found

            def look(self, images, prepared=None):
                assert self.ready[min(2 * len(self.given) + 3, 5)].wait(PATIENCE)
                self.most.append(len(self.threads))
                return super().look(images, prepared)

        model = Waiting()
        ask(model, workers=1)
        assert model.most == [4, 6, 6]

    def test_an_error_of_a_worker_names_the_image_and_leaves_a_run_that_goes_on(self, ask):
        class Broken(Spied):
            def prepare(self, image):
                if image.getpixel((0, 0))[0] == 5:
                    raise ValueError("no such\ncolour")
                return super().prepare(image)

        say = r"image '.*color/0005.png' cannot be made ready .*\(ValueError: no such colour\)"
        with pytest.raises(RunError, match=say):
            ask(Broken())
        assert len(ask(Spied()).results) == 12

    def test_memory_that_a_worker_lacks_is_not_the_models(self, ask):
        class Full(Spied):
            def prepare(self, image):
                raise MemoryError

        with pytest.raises(RunError, match=r"0000.png' does not fit into memory; set workers to 1"):
            ask(Full())

    def test_ctrl_c_in_the_model_leaves_a_run_that_goes_on(self, ask):
        class Stopped(Spied):
            def look(self, images, prepared=None):
                if len(self.given) == 1:
                    raise KeyboardInterrupt
                return super().look(images, prepared)

        with pytest.raises(KeyboardInterrupt):
            ask(Stopped())
        model = Spied()
        assert len(ask(model).results) == 12
        assert len(model.given) == 2

    def test_records_are_those_of_a_run_that_prepares_nothing(self, ask, golden, monkeypatch):
        from cof.models import llava

        path = str(golden / "checkpoint")
        model = llava.load(llava.Config(path, device="cpu", dtype="float32"))
        short = {"limits": {"max_new_tokens": 4}, "model": {"path": path}}
        rows = []
        for name in ("ahead", "late"):
            if name == "late":
                monkeypatch.setattr(CoF, "prepare", lambda self, image: Prepared(image))
            done = ask(model, name=name, **short)
            lines = (done.path / "records.jsonl").read_text().splitlines()
            rows.append([json.dumps(comparable(json.loads(line))) for line in lines])
        assert rows[0] == rows[1]
        assert len(rows[0]) == 12


class TestTheHashOfTheImages:
    """Known before the first record, waited for by nobody who has something to do."""

    @pytest.fixture
    def ask(self, tmp_path, monkeypatch):
        data = make_mme(tmp_path / "mme", 6)
        monkeypatch.setattr("cof.models.llava.load", lambda config: StubModel())
        build = runner.build_pipeline

        def asked(answer=None, **top):
            def with_answer(config):
                pipeline = build(config)
                if answer is not None:
                    whole = pipeline.answer_batch
                    pipeline.answer_batch = lambda *batch: answer(whole, *batch)
                return pipeline

            monkeypatch.setattr(runner, "build_pipeline", with_answer)
            bench = {"name": "mme", "root": str(data)}
            base = {"bench": bench, "out": str(tmp_path / "runs"), "name": "r", "batch_size": 4}
            return run(schema.resolve({**base, **top}))

        return asked

    @pytest.fixture
    def slow(self, monkeypatch):
        """A gate before the hash; open it to have it."""
        from cof.store import dataset, hashing

        gate = threading.Event()

        def hashed(questions, root, stop):
            while not gate.wait(0.01):
                if stop():
                    return "stopped"
            return dataset.hash_images(questions, root)

        monkeypatch.setattr(hashing, "hash_images", hashed)
        return gate

    @pytest.fixture
    def folder(self, tmp_path):
        return tmp_path / "runs" / "r"

    def kept(self, folder):
        return json.loads((folder / "manifest.json").read_text())["dataset"]["images"]

    @pytest.mark.parametrize("size", [4, "auto"])
    def test_a_model_is_loaded_and_a_batch_answered_without_it(self, ask, slow, folder, size):
        found = []

        def answer(whole, questions, images):
            found.append((self.kept(folder), (folder / "records.jsonl").exists()))
            slow.set()
            return whole(questions, images)

        done = ask(answer, batch_size=size)
        assert found[0] == ("pending", False)
        assert all(len(hashed) == 64 and there for hashed, there in found[1:])
        assert len(self.kept(folder)) == 64
        assert len(done.results) == 12
        assert done.manifest.get("batch_size") == (64 if size == "auto" else None)

    def test_a_run_that_is_killed_before_has_no_record_and_begins_anew(
        self, ask, slow, folder, tmp_path
    ):
        def killed(whole, questions, images):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            ask(killed)
        assert self.kept(folder) == "pending"
        assert not (folder / "records.jsonl").exists()
        assert not any(thread.name.startswith("hash") for thread in threading.enumerate())
        Image.new("RGB", (8, 6), "white").save(tmp_path / "mme" / "color" / "0001.png")
        slow.set()
        assert len(ask().results) == 12
        assert len(self.kept(folder)) == 64

    def test_a_run_that_goes_on_waits_for_it_before_anything_else(self, ask, folder, tmp_path):
        ask()
        records = folder / "records.jsonl"
        records.write_text("".join(records.read_text().splitlines(keepends=True)[:4]))
        before = records.read_bytes()
        Image.new("RGB", (8, 6), "white").save(tmp_path / "mme" / "color" / "0001.png")
        with pytest.raises(RunError, match=r"another dataset \(images: "):
            ask(lambda *_: pytest.fail("asked"))
        assert records.read_bytes() == before

    def test_records_beside_a_manifest_without_it_are_refused(self, ask, folder):
        """No run leaves this; a file that was put back by hand does."""
        ask()
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["dataset"]["images"] = "pending"
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(RunError, match=r"another dataset \(images: pending there, "):
            ask()

    def test_a_refused_run_stops_the_thread(self, ask, slow, monkeypatch):
        def refused(config):
            raise RunError("no such weights")

        monkeypatch.setattr("cof.store.origin.identify", refused)
        with pytest.raises(RunError, match="no such weights"):
            ask()
        assert not any(thread.name.startswith("hash") for thread in threading.enumerate())
