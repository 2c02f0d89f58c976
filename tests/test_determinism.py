"""`deterministic`: what is switched, that a run says so, and that it is a setting of its own."""

import json
import os
import subprocess
import sys

import pytest
import torch

from cof.config import schema
from cof.config.identity import content_hash

PROBE = """
import os, torch
from cof.config import schema
from cof.evaluate.runner import build_pipeline
build_pipeline(schema.resolve({"bench": {"name": "mme", "root": "x"}, "deterministic": %s,
                               "model": {"device": "cpu"}}))
print(torch.are_deterministic_algorithms_enabled(), torch.backends.cudnn.deterministic,
      torch.backends.cuda.matmul.allow_tf32, os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
"""


@pytest.mark.parametrize(
    ("said", "found"), [("True", "True True False :4096:8"), ("False", "False False False None")]
)
def test_the_run_switches_it_on_and_only_where_it_is_asked_for(said, found):
    bare = {key: value for key, value in os.environ.items() if key != "CUBLAS_WORKSPACE_CONFIG"}
    asked = [sys.executable, "-c", PROBE % said]
    done = subprocess.run(asked, env=bare, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == found


def test_it_is_a_setting_and_older_runs_had_none():
    base = {"bench": {"name": "mme", "root": "x"}}
    plain, fixed = (
        schema.resolve({**base, "deterministic": value}).as_dict() for value in (False, True)
    )
    assert content_hash(plain, {}) != content_hash(fixed, {})
    older = {key: value for key, value in plain.items() if key != "deterministic"}
    assert content_hash(older, {}) == content_hash(plain, {})
    assert json.loads(json.dumps(fixed))["deterministic"] is True


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_twice_on_a_gpu_gives_the_same_bits(dtype):
    twice = """
import torch
from cof.models.common.determinism import make_deterministic
make_deterministic()
from PIL import Image
from cof.batch import Batch
from cof.models.base import Limits
from cof.models.llava import Config, load
from cof.types import Question
model = load(Config("cof-tiny", device="cuda", dtype="%s"))
asked = [Question(str(i), "i", f"Is shape {i} red?") for i in range(8)]
batch = Batch.of(model, asked, [Image.new("RGB", (90, 60), (9 * i, 80, 9)) for i in range(8)])
print([(one.tokens, one.logprobs) for one in batch.plain])
"""
    said = [
        subprocess.run(
            [sys.executable, "-c", twice % dtype], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    ]
    assert said[0] == said[1]
