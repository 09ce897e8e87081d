"""What a process shows of itself over HTTP: metrics, and whether it lives and is ready.

Only looks, only GET, and says nothing of mail but numbers.
"""
