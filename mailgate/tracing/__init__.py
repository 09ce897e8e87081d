"""OpenTelemetry spans, where they are asked for: what became of a traced message, in its trace.

Only messages that came with a ``traceparent`` have spans. They are made after the fact, a
batch at a time, so nothing of this stands between a message and its relay.
"""
