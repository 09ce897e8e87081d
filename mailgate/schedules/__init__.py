"""Recurring mail: when it fires, what it reads, and the messages that come of it.

Never knows Celery: the worker's clock asks for what is due, and its tasks carry it out.
"""
