"""Benchmarks, one file each: reader, scorer and exporter.

A benchmark is a module with a frozen dataclass `Config` (its `root` and options) and

    VERSION: str                                          # of the reader and scorer, recorded
    def read(config) -> list[Question]                    # image paths relative to config.root
    def credit(question, answer) -> float                 # 0..1 for one answer, for statistics
    def score(questions, answers) -> dict                 # the published metrics, all digits
    def table(scores) -> list[tuple[str, float, int]]     # rows (name, value, n) to print
    def export(questions, answers, folder) -> list[Path]  # the published answer formats
    def read_answers(path, config) -> (questions, answers) # foreign answer files, for `cof score`
"""
