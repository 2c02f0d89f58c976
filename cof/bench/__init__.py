"""Benchmarks, one file each: reader, scorer and exporter.

A benchmark is a module with a frozen dataclass `Config` (its `root` and options) and

    VERSION: str                                          # of the reader and scorer, recorded
    def read(config) -> list[Question]                    # image paths relative to config.root
    def credit(question, answer) -> float                 # 0..1 for one answer, for statistics
    def score(questions, answers) -> dict                 # the published metrics, all digits
    def table(scores) -> list[tuple[str, float, int]]     # rows (name, value, n) to print
    def export(questions, answers, folder) -> list[Path]  # the published answer formats
    def read_answers(path, config, allow_missing) -> Answers   # foreign files, for `cof score`

`Question.text` already ends with the prompt suffix that the published numbers were made with, and
`Question.id` is unique and the same on every machine. `score` is a pure function of its two lists
(same length, same order); what it returns is JSON-able, in a fixed key order, and starts with
`benchmark` and `version`. Scoring what `export` wrote gives what `score` gave. Everything that is
wrong with a file is a `cof.errors.DataError` that names it, with the line where there is one.
`base.py` has the parts that benchmarks share.
"""
