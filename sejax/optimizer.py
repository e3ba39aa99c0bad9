"""The optimizer of the policy."""

SCHEDULES = ("constant", "linear", "cosine")
