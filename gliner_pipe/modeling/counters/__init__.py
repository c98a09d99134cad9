"""Counters: how many instances of a task a text holds, and one query for each."""
