"""Audits: every loss that a package exports, found, checked and put into a table.

`find` lists the losses of a module, `overrides` says what inference cannot know, `pool` runs the checks in processes that may hang or
die, `store` keeps one file per loss, `table` writes the summary, and `run` is the verb.
"""
