# For hands that type make: everything is in ./dev.
.PHONY: demo test check bench faults fuzz audit lock
demo test check bench faults fuzz audit lock:
	./dev $@
