"""No tasks of our own: LMMS_EVAL_PLUGINS wants the folder."""
