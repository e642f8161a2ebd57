"""These tests need T5X, which is on no package index: docs/t5x.md says how to have it.

What needs it skips itself by `t5x.version`; `t5x` alone is found without T5X too: it is this
folder. `.ci/run` says so where they did not run.
"""
