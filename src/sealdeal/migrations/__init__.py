"""The history of owned tables, one line: each file is one revision, applied by `sealdeal.db.migrate`."""
