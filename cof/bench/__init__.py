"""Benchmarks, one file each: reader, scorer and exporter.

A benchmark is a module with a frozen dataclass `Config` (its `root` and options) and

    VERSION: str                                          # of the reader and scorer, recorded
    def read(config) -> list[Question]                    # image paths relative to config.root
    def credit(question, answer, config=None) -> float    # 0..1 for one answer, for statistics
    def score(questions, answers, config=None) -> dict    # the published metrics, all digits
    def table(scores) -> list[tuple[str, float, int]]     # rows (name, points, n) to print
    def export(questions, answers, folder, config=None) -> list[Path]  # published answer formats
    def read_answers(path, config, allow_missing) -> Answers    # foreign files, for `cof score`

where a row of the table is not in points of 0 to 100 (MME's sums),

    def ranges(scores) -> dict[str, tuple[float, float]]  # name -> its bounds

and, where the benchmark scores the coarse stage and not the answer (RefCOCO),

    def region_answer(region) -> str                      # what stands for the answer

`Question.text` already ends with the prompt suffix that the published numbers were made with, and
`Question.id` is unique and the same on every machine. `score` is a pure function of its lists
(same length, same order) and of those options of `config` that choose a rule, None for the
defaults; it needs no field of a question that a record does not keep. What it returns is JSON-able,
in a fixed key order, and starts with `benchmark` and `version`. An answer that is None is that of a
question that failed: wrong everywhere, and never exported, so that an answer file that lacks one is
seen to. Scoring what `export` wrote gives what `score` gave. `table` speaks in the points that
papers print: shares times 100.

Everything that is wrong with a file is a `cof.errors.DataError` that names it, with the line where
there is one. `common/files.py` reads and writes files, `common/rows.py` takes values out of JSON
and refuses others, `common/answers.py` puts answers to questions, `common/units.py` judges boxes in
pixels. A file's name that a data file gives goes through `Row.inside`. Boxes are annotated on
pictures as they are stored, and pictures are shown so (`images.exif: ignore`); `cof.store.dataset`
turns both otherwise.

For `cof data check`: `SOURCE` (where to get it), `expected(config)` (published numbers of questions
a category, "" for all), and where known `KNOWN_MD5` (file name -> MD5).

A module that lacks one of these functions, or `SOURCE`, is refused when it is loaded.
"""
