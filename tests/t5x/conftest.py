"""These tests need T5X, which is on no package index: docs/t5x.md says how to have it.

Each file skips itself by `t5x.version`; `t5x` alone is found without T5X too: it is this folder.
"""
