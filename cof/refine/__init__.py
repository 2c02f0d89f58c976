"""Fine stages, one file each: answer again, with the region in mind.

A fine stage is a module with a frozen dataclass `Config` and

    def refine(model, questions, views, focuses, config, limits) -> list[Answer]

where `questions`, `views` and `focuses` are the rows of one batch and `limits` says how to decode.
"""
