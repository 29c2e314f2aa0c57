"""What a key may use: requests and tokens a minute and a day, in memory or in a shared store."""

from services.limits.limiter import Limiter

__all__ = ["Limiter"]
