"""Coarse stages, one file each: which region of the image holds the answer?

A coarse stage is a module with a frozen dataclass `Config` and

    def locate(model, questions, views, config) -> list[Region]

where `questions` and `views` (what the model saw of each image) are the rows of one batch.
"""
