"""Coarse stages, one file each: which region of the image holds the answer?

A coarse stage is a module with a frozen dataclass `Config` and

    def locate(model, questions, views, config) -> list[Region]

where `questions` and `views` (what the model saw of each image) are the rows of one batch. What it
says of a question must not depend on the rest of the batch; where it fails for one, that `Region`
has an `error`. A stage that cannot serve every
benchmark also has

    def check(bench, questions, config) -> None       # DataError, with all questions, beforehand

and one that reads its regions from a file

    def source(config) -> str       # hash of what the file says, "" for no file; in the manifest
"""
