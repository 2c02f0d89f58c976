"""What lmms-eval 0.5 reads with LMMS_EVAL_PLUGINS=cof.harness.lmms_eval: module -> class."""

AVAILABLE_MODELS = {"cof": "CofModel"}
