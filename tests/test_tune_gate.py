"""`cof tune gate`: a threshold against every threshold there is, chosen here and used there."""

from itertools import pairwise

import pytest
import torch
from click.testing import CliRunner
from fake_runs import make_run, right_with
from fakes import make_mme

from cof import load_run
from cof.analyse.gate import choose
from cof.cli import main
from cof.config import schema
from cof.config.yaml import dump_yaml, parse_yaml


class TestChoose:
    def test_by_hand(self):
        margins = [0.5, 3.0, 1.0, 2.0]
        before, after = [0, 1, 0, 1], [1, 0, 1, 1]  # asked in turn: +1, +1, 0, -1
        found = choose(margins, before, after, within=0.0)
        assert found == (1.5, 0.5, 0.5, 1.0, 0.75, 4)
        assert choose(margins, before, after, within=0.25).threshold == 0.75
        assert choose(margins, before, after, within=0.5).asked == 0
        assert choose(margins, before, after, share=0.75)[:2] == (2.5, 0.75)

    @pytest.mark.parametrize("seed", range(20))
    def test_against_every_threshold_there_is(self, seed):
        generator = torch.Generator().manual_seed(seed)
        draw = torch.randint(1, 8, (12,), generator=generator).double() / 4  # with ties
        before, after = torch.randint(0, 2, (2, 12), generator=generator).double().tolist()
        found = choose(draw.tolist(), before, after, within=0.1)
        marks = sorted({0.0, *draw.tolist(), 9.0})
        tries = [
            (round(_credit(draw, before, after, cut), 9), -int((draw <= cut).sum()), cut)
            for cut in ((low + high) / 2 for low, high in pairwise(marks))
        ]
        good = [one for one in tries if one[0] >= max(tries)[0] - 0.1 - 1e-9]
        fewest = max(good, key=lambda one: one[1])
        assert found.asked == -fewest[1] / 12
        assert found.gated == pytest.approx(fewest[0])
        assert _credit(draw, before, after, found.threshold) == pytest.approx(found.gated)


def _credit(margins, before, after, cut):
    pairs = zip(margins.tolist(), before, after, strict=True)
    return sum(two if margin <= cut else one for margin, one, two in pairs) / len(before)


class TestTune:
    def test_chosen_on_one_set_refused_there_and_used_on_another(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        for seed, name in ((1, "dev"), (2, "test")):
            _cof(f"data mini {name} --size 2 --seed {seed} --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit: 6}\n"
            "limits: {max_new_tokens: 4}\nbatch_size: 16\n"
        )
        said = _cof("tune gate c.yaml name=all --share 0.5 --write gated.yaml")
        assert "# asks 50.0 % of 12 questions" in said
        gate = schema.load(tmp_path / "gated.yaml").gate
        assert f"threshold: {gate.threshold}" in said
        again = _cof("tune gate runs/all --share 0.5")
        assert again.strip() in said
        for part in ("bench.limit=6", "bench.limit=1", "bench.limit=null"):
            assert "holds the questions that chose" in _cof(f"eval gated.yaml {part}", 2)
        said = _cof("eval gated.yaml bench.root=test/MiniMME name=gated plain=false")
        kept = sum(one.kept for one in load_run("runs/gated").results)
        assert f"the gate kept {kept} plain answers, for which the first two were not run" in said
        assert "run it with gate.threshold=null" in _cof("tune gate runs/gated", 2)
        for stage, key in (("file", "path"), ("random", "of"), ("shuffled", "of")):
            source = f"locate.name={stage} locate.{key}=runs/gated"
            refused = _cof(f"eval c.yaml bench.root=test/MiniMME {source}", 2)
            assert f"kept the plain answers of {kept} of its" in refused
            _cof(f"eval c.yaml bench.root=test/MiniMME --dry-run {source} locate.truth=true")
        said = _cof("compare runs/all")
        assert "none, all are asked" in said

    def test_a_config_without_plain_answers_gets_them_to_choose_by(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _cof("data mini dev --size 2 --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit: 2}\n"
            "limits: {max_new_tokens: 4}\nplain: false\n"
        )
        said = _cof("tune gate c.yaml name=all --share 0.5 --write gated.yaml")
        assert "of 4 questions" in said
        assert load_run("runs/all").config["plain"]
        assert not schema.load(tmp_path / "gated.yaml").general.plain
        said = _cof("eval gated.yaml --dry-run gate.chosen_on=x")
        assert "passes     plain, locate=prompt, refine=highlight" in said
        threshold = schema.load(tmp_path / "gated.yaml").gate.threshold
        assert f"gate       only plain answers with a margin up to {threshold:g} nats" in said
        said = _cof("eval c.yaml --dry-run gate.threshold=null")
        assert "gate       open: every question" in said
        said = _cof("eval c.yaml --dry-run")
        assert "passes     locate=prompt, refine=highlight" in said
        assert "gate" not in said
        again = CliRunner().invoke(main, ["tune", "gate", "c.yaml", "name=other", "--quiet"])
        assert (again.exit_code, again.stderr) == (0, "")

    def test_an_older_run_has_its_limit_under_the_new_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        _cof("data mini dev --size 2 --only MiniMME")
        (tmp_path / "c.yaml").write_text(
            "bench: {name: mme, root: dev/MiniMME, limit_first: 2}\n"
            "limits: {max_new_tokens: 4}\nname: old\ngate: {threshold: null}\n"
        )
        _cof("eval c.yaml --quiet")
        saved = tmp_path / "runs" / "old" / "config.yaml"
        config = parse_yaml(saved)
        config["bench"] |= {"limit": config["bench"].pop("limit_first")}
        del config["bench"]["limit_seed"]
        saved.write_text(dump_yaml(config))
        _cof("tune gate runs/old --share 0.5 --write gated.yaml")
        subset = schema.load(tmp_path / "gated.yaml").subset
        assert (subset.limit, subset.limit_first) == (None, 2)
        said = _cof(f"eval {saved}", 2)
        assert "bench.limit: 'absent' there, 2 here; bench.limit_first: 2 there, None here" in said
        assert "so give bench.limit=null bench.limit_first=2;" in said
        _cof(f"eval {saved} bench.limit=null bench.limit_first=2")
        said = _cof(f"eval {saved} bench.limit=1", 2)
        assert "bench.limit_first: 2 there, None here); choose another name=" in said

    def test_what_it_cannot_use(self, tmp_path):
        data = make_mme(tmp_path / "mme", 2)
        run = make_run(tmp_path / "runs", data, right_with(0.5, 0.5))
        assert "hold no margins" in _cof(f"tune gate {run.path}", 2)
        assert "a run is what it is" in _cof(f"tune gate {run.path} refine.weight=2", 2)

    def test_a_benchmark_of_regions_has_no_gate(self, mini):
        config = f"bench.root={mini}/grounding gate.threshold=1"
        said = _cof(f"eval examples/configs/grounding.yaml {config}", 2)
        assert "gate: refcoco scores regions" in said


def _cof(words, code=0):
    done = CliRunner().invoke(main, words.split())
    assert done.exit_code == code, done.output
    return done.output
