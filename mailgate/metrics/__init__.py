"""What a process counts about itself: the closed list of metrics, and where the numbers stand.

Never serves them (``http`` does), and never holds an address, a subject or a template's data.
"""
