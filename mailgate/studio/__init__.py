"""The pages on this machine: the template studio, and the inbox of ``mailgate up``.

Owns what they share: the guard against other web pages, how they are served, and
the frame that they are drawn in (``frame``). ``inbox`` needs nothing of the rest
of mailgate; the studio itself takes templates from ``render`` and sends by ``smtp``.
"""
