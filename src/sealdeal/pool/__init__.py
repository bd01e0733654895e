"""A workerpool's scheduler: it opens tasks, gives them to workers, and ends what can't succeed."""
