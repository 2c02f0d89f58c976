"""Fine stages, one file each: answer again, with the region in mind.

A fine stage is a module with a frozen dataclass `Config` and

    def refine(model, questions, views, focuses, config, limits) -> list[Answer]

where `questions`, `views` and `focuses` are the rows of one batch and `limits` says how to decode.

A pass that failed is an `Answer` with an `error`; it takes no other row with it.

A question with `choose` is answered by the likeliest of its options: `_reply.py` does either, so a
stage that answers through it need not know.

A module may also have `check(model, config)`, which raises a ConfigError for settings that the
loaded model cannot have; it is called before any question is asked.
"""
