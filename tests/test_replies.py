"""Coarse replies on disk: same regions, nothing asked twice, nothing mixed up, many writers."""

import subprocess
import sys
from dataclasses import replace

import pytest
from click.testing import CliRunner
from PIL import Image

from cof.cli import main
from cof.errors import RunError
from cof.locate import prompt
from cof.models.base import Limits
from cof.pipeline import CoF, Settings
from cof.store.replies import ReplyCache
from cof.types import Question


@pytest.fixture
def batch(golden):
    image = Image.open(golden / "images" / "wide.png").convert("RGB")
    other = Image.open(golden / "images" / "square336.png").convert("RGB")
    questions = [
        Question("a", "w", "What?"),
        Question("b", "w", "Why?"),
        Question("c", "s", "What?"),
    ]
    return questions, [image, image, other]


@pytest.fixture
def cached(llava, tmp_path):
    settings = Settings(locate=prompt.Config(max_new_tokens=5), limits=Limits(2))
    return CoF(llava, settings, ReplyCache(tmp_path / "sub" / "replies.sqlite"))


def test_a_second_run_asks_nothing_and_finds_the_same(cached, batch):
    first = cached.answer_batch(*batch)
    assert (cached.cache.hits, cached.cache.misses) == (0, 3)
    before = cached.model.counters.forwards
    second = cached.answer_batch(*batch)
    assert (cached.cache.hits, cached.cache.misses) == (3, 3)
    assert cached.model.counters.forwards - before == 1 + 2 + 2
    plain = [CoF(cached.model, cached.settings).answer_batch(*batch)]
    for rows in (second, *plain):
        for a, b in zip(first, rows, strict=True):
            assert replace(a.region, seconds=0) == replace(b.region, seconds=0)
            assert a.cof.tokens == b.cof.tokens


def test_only_what_is_missing_is_asked(cached, batch):
    questions, images = batch
    cached.answer_batch(questions[1:2], images[1:2])
    cached.answer_batch(questions, images)
    assert (cached.cache.hits, cached.cache.misses) == (1, 3)


def test_keys_tell_everything_apart_that_changes_a_reply(cached, batch, monkeypatch):
    questions, images = batch
    model, config, cache = cached.model, prompt.Config(), cached.cache
    base = cache.key(model, prompt, config, questions[0], images[0])
    others = [
        cache.key(model, prompt, config, questions[1], images[0]),
        cache.key(model, prompt, config, questions[0], images[2]),
        cache.key(model, prompt, config, replace(questions[0], core="Who?"), images[0]),
        cache.key(model, prompt, prompt.Config(max_new_tokens=9), questions[0], images[0]),
        cache.key(
            model, prompt, prompt.Config(prompt="Where? {question}"), questions[0], images[0]
        ),
    ]
    monkeypatch.setattr(model, "conv", "llava_v1")
    others.append(cache.key(model, prompt, config, questions[0], images[0]))
    monkeypatch.undo()
    assert len({base, *others}) == 7
    assert base == cache.key(model, prompt, config, questions[0], images[0].copy())


WRITER = """
import sys
from pathlib import Path
from types import SimpleNamespace
from cof.store.replies import ReplyCache
cache, who = ReplyCache(Path(sys.argv[1])), sys.argv[2]
stage = SimpleNamespace(__name__="cof.locate.prompt")
for i in range(50):
    rows = [(f"{i}-{j}", "q", f"reply {i} {j}") for j in range(4)] + [(f"{who}-{i}", "q", who)]
    cache._write(SimpleNamespace(name="m"), stage, rows)
"""


@pytest.mark.slow
def test_several_writers_lose_nothing(tmp_path):
    file = tmp_path / "replies.sqlite"
    command = [sys.executable, "-c", WRITER, str(file)]
    running = [subprocess.Popen([*command, who]) for who in ("x", "y", "z")]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert ReplyCache(file).rows() == [("m", "prompt", 50 * 4 + 3 * 50)]


def test_cache_command_lists_and_clears(cached, batch):
    cached.answer_batch(*batch)
    file, run = str(cached.cache.file), CliRunner()
    assert "prompt" in run.invoke(main, ["cache", "list", file]).output
    assert "0 replies" in run.invoke(main, ["cache", "clear", file, "--model", "x"]).output
    assert "3 replies" in run.invoke(main, ["cache", "clear", file]).output
    assert "no replies" in run.invoke(main, ["cache", "list", file]).output


def test_a_file_that_is_no_cache_is_named(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a database, but long enough to be read as one" * 30)
    with pytest.raises(RunError, match=r"notes\.txt"):
        ReplyCache(file).rows()
