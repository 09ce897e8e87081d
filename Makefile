# For hands that type make: everything is in ./dev.
.PHONY: demo test check bench faults lock
demo test check bench faults lock:
	./dev $@
