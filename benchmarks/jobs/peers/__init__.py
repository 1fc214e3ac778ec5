"""Other queues, in environments of their own."""
