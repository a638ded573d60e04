"""The API's rate limit: a bucket that refills by the second. Pure: time is an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RateLimit:
    """So many calls an hour for the whole project; one more each second."""

    limit: int
    refill_per_s: float
    left: float
    seen: float
    """When `left` was right, in seconds."""

    def take(self, now: float) -> bool:
        """Use up one call; False when none is left."""
        self.refill(now)
        if self.left < 1:
            return False
        self.left -= 1
        return True

    def refill(self, now: float) -> None:
        """Add what has come back since the last look."""
        self.left = min(self.limit, self.left + max(0.0, now - self.seen) * self.refill_per_s)
        self.seen = now

    def headers(self) -> dict[str, str]:
        """Tell the client where it stands; reset is when the bucket will be full."""
        missing = self.limit - self.left
        wait = missing / self.refill_per_s if self.refill_per_s else 0
        return {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(int(self.left)),
            "RateLimit-Reset": str(int(self.seen + wait)),
        }
