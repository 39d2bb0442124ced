"""The exit codes of commands beyond 0 (done), 1 (something is wrong with what was given) and 2 (usage)."""

from __future__ import annotations

#: Part of what was given was taken and the rest was refused, with reasons.
PARTLY_REFUSED = 3
