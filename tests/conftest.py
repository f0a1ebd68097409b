from __future__ import annotations

import signal

# A shell starts its background jobs with Ctrl-C ignored, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
