"""The worker: Celery's app, the event loop behind its one task, the doorbell.

The only package that imports celery.
"""
