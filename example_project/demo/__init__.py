"""The stage of the example: a command that runs it, a stranger that hears its webhooks, a tour."""
