"""The peer that most projects write themselves: one Celery task for each delivery."""
