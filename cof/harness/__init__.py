"""Other evaluation tools ask the questions: lmms-eval (a plug-in), VLMEvalKit (a launcher).

`arguments` turns a tool's flat options into a run's config, `session` answers and keeps a record of
every question; what is left to each tool's own module is its interface.
"""
