"""The page of `cof app`: ask about a picture, move λ, correct the box, step through a run.

What is shown is made without Gradio (`asking`, `browse`, `pictures`, `answers`), as HTML in which
every text is escaped; `page` wires it to Gradio and is the only module that imports that. The page
reads uploads, and the images and records of the run folders that it was started with.
"""
