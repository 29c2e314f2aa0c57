"""The usage ledger: one record per call, written off the request path to a file or a database.

`Ledger` takes calls and writes them; `totals.read` adds up what was written. Which store a URL
means stands in `stores`. Knows neither face and no service.
"""

from services.ledger.ledger import MAX_QUEUE, Ledger, LedgerFault
from services.ledger.record import Prices

__all__ = ["MAX_QUEUE", "Ledger", "LedgerFault", "Prices"]
